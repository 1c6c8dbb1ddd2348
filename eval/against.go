package eval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
)

// Comparison is a model beside the dense one that it was made from, on the
// same windows. Multiple choice and perplexity hide what it shows: how often
// the model would say something else.
type Comparison struct {
	Model Result `json:"model"`
	Dense Result `json:"dense"`
	Divergence
}

// Divergence is how far a model's predictions are from the dense ones'.
type Divergence struct {
	KL        Spread  `json:"kl"`       // divergence of the model's distributions from the dense ones', nats
	SameTop   float64 `json:"same_top"` // share of positions at which both find the same token likeliest
	Positions int     `json:"positions"`
}

// Spread is the mean of numbers and some of them in order: the p-th
// percentile is the ⌈p·n/100⌉-th smallest of n.
type Spread struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// spread sorts x, which is not empty.
func spread(x []float64) Spread {
	slices.Sort(x)
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	at := func(p int) float64 { return x[(p*len(x)+99)/100-1] }
	return Spread{Mean: sum / float64(len(x)), P50: at(50), P90: at(90), P99: at(99), Max: x[len(x)-1]}
}

// Against measures m beside dense on windows of equal length, at the positions
// that perplexity scores. The perplexities are Perplexity's but for the order of
// additions. The two models must have one vocabulary and, for the
// tokens to mean the same, one tokenizer.
func Against(ctx context.Context, m, dense *model.Model, windows [][]int32, opt Options) (Comparison, error) {
	nothing := func(*hidden.Store) error { return fs.ErrNotExist }
	return Diverge(ctx, m, dense, windows, nil, nothing, opt)
}

// Diverge is Against where the two have passed the windows before: now holds what m's
// last block put out for them, first of all, and restore fills a store with the dense
// one's. If now is nil, or restore's error fs.ErrNotExist, that model passes them again.
func Diverge(ctx context.Context, m, dense *model.Model, windows [][]int32, now *hidden.Store, restore func(*hidden.Store) error, opt Options) (Comparison, error) {
	if len(windows) == 0 || len(windows[0]) < 2 {
		return Comparison{}, errors.New("comparison: no window of two tokens or more")
	}
	then, err := hidden.New(dense.Engine(), len(windows), len(windows[0]), dense.Width(), opt.States)
	if err != nil {
		return Comparison{}, err
	}
	defer then.Close()
	err = restore(then)
	again := errors.Is(err, fs.ErrNotExist)
	if err != nil && !again {
		return Comparison{}, err
	}
	passes := 1 // of the heads
	if now == nil {
		passes += m.Blocks()
	}
	if again {
		passes += dense.Blocks()
	}
	name := cmp.Or(opt.Name, "compare")
	bar := opt.Progress.Start(name, int64(len(windows)*passes), "windows")
	if now == nil {
		if now, err = forward(ctx, m, windows, opt, bar, name); err != nil {
			return Comparison{}, err
		}
		defer now.Close()
		m.Trim()
	}
	if again {
		if err := passBlocks(ctx, dense, windows, then, bar, name+", dense model"); err != nil {
			return Comparison{}, err
		}
		dense.Trim()
	}
	bar.Part(name+": heads", int64(len(windows)))
	return diverge(ctx, m, dense, windows, [2]*hidden.Store{now, then}, bar)
}

// diverge turns the last blocks' outputs into the comparison.
func diverge(ctx context.Context, m, dense *model.Model, windows [][]int32, stores [2]*hidden.Store, bar *progress.Bar) (Comparison, error) {
	head, err := m.LoadHead()
	if err != nil {
		return Comparison{}, err
	}
	denseHead, err := dense.LoadHead()
	if err != nil {
		return Comparison{}, err
	}
	scored := len(windows[0]) - 1
	perBatch := max(1, batchTokens/(scored+1))
	x, y, stream := m.NewMat(perBatch*scored), dense.NewMat(perBatch*scored), m.Engine().NewStream()
	all := make([]engine.Divergence, 0, len(windows)*scored)
	for lo := 0; lo < len(windows); lo += perBatch {
		if err := ctx.Err(); err != nil {
			return Comparison{}, err
		}
		hi := min(lo+perBatch, len(windows))
		var targets []int32
		for i := lo; i < hi; i++ {
			for k, dst := range []engine.Mat{x, y} {
				h, err := stores[k].Get(i)
				if err != nil {
					return Comparison{}, err
				}
				stream.Copy(dst.Slice((i-lo)*scored, (i-lo+1)*scored), h.Slice(0, scored))
			}
			targets = append(targets, windows[i][1:]...)
		}
		n := len(targets)
		part := make([]engine.Divergence, n)
		if err := head.Compare(denseHead, x.Slice(0, n), y.Slice(0, n), targets, part); err != nil {
			return Comparison{}, err
		}
		all = append(all, part...)
		bar.Add(int64(hi - lo))
	}
	return compare(all, len(windows), scored)
}

// compare sums up what was found at each position, so many a window.
func compare(all []engine.Divergence, windows, scored int) (Comparison, error) {
	kl, same := make([]float64, len(all)), 0
	var nll, denseNLL float64
	for i, d := range all {
		if v := d.KL + d.NLL + d.DenseNLL; math.IsNaN(v) || math.IsInf(v, 0) {
			return Comparison{}, &NotFiniteError{Window: i / scored, NLL: v}
		}
		kl[i] = d.KL
		nll += d.NLL
		denseNLL += d.DenseNLL
		if d.SameTop {
			same++
		}
	}
	of := func(sum float64) Result { return result(sum/float64(len(all)), windows, scored+1) }
	return Comparison{
		Model: of(nll), Dense: of(denseNLL),
		Divergence: Divergence{KL: spread(kl), SameTop: float64(same) / float64(len(all)), Positions: len(all)},
	}, nil
}

// NotFiniteError says that a window has no finite likelihood under the model.
type NotFiniteError struct {
	Window int     // from 0
	NLL    float64 // its mean: NaN or an infinity
}

func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("comparison: window %d has a mean negative log-likelihood of %v, want a finite number", e.Window, e.NLL)
}

// Package eval measures what a model is worth.
package eval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
)

// Result is a perplexity and what it was measured on: without the window and
// the number of windows a perplexity says nothing.
type Result struct {
	Perplexity Number `json:"perplexity"` // exp(NLL)
	NLL        Number `json:"nll"`        // nats per token: mean over the windows of each window's mean
	Windows    int    `json:"windows"`
	Tokens     int    `json:"tokens"` // Windows · SeqLen; each window scores SeqLen − 1
	SeqLen     int    `json:"seqlen"`

	// Stderr is the perplexity's standard error over the windows, Perplexity · s/√n
	// with s the standard deviation of their means; 0 if there is one window, or if
	// a window has no likelihood.
	Stderr float64 `json:"stderr,omitempty"`
}

// result is what so many windows of seqLen tokens have with that mean.
func result(nll float64, windows, seqLen int) Result {
	return Result{
		Perplexity: finite(math.Exp(nll)), NLL: finite(nll),
		Windows: windows, Tokens: windows * seqLen, SeqLen: seqLen,
	}
}

// MaxNLL is above what any model measures: logits that are 10⁶ apart.
const MaxNLL = 1e6 // nats per token

// Valid reports whether r can have been measured. A damaged file holds others.
func (r Result) Valid() bool {
	const rounding = 1e-9
	want := math.Exp(float64(r.NLL))
	same := float64(r.Perplexity) == want || math.Abs(float64(r.Perplexity)-want) <= rounding*want && !math.IsInf(want, 0)
	return r.Windows > 0 && r.SeqLen > 1 && r.Tokens == r.Windows*r.SeqLen && r.NLL > -1 && (r.NLL <= MaxNLL || r.NLL.Infinite()) && same
}

// Options of a measurement.
type Options struct {
	Name     string        // of the step in progress reports
	States   engine.Place  // of the hidden states between blocks
	Progress progress.Func // may be nil

	// Last, if not nil, is called with the last block's outputs for the windows.
	Last func(*hidden.Store) error
}

// PlaceFor returns where the hidden states of so many sequences, for each of so many
// models of m's sizes, are kept between blocks: within half of a memory budget in bytes,
// 0 being none, or else in a file in dir.
func PlaceFor(m *model.Model, sequences, tokens, models int, budget int64, dir string) engine.Place {
	host := budget / 2
	if budget == 0 {
		host = math.MaxInt64
	}
	own, _ := m.OwnLeft(tokens)
	return engine.PlaceFor(m.Engine(), hidden.Bytes(sequences, tokens, m.Width()), own/int64(models), host, dir)
}

// Perplexity measures m on windows of equal length, by the literature's protocol:
//
//	perplexity = exp( mean over windows of ( 1/(T−1) Σ_{t<T} −ln p(x_{t+1} | x_1 … x_t) ) )
//
// Each window stands alone. All windows pass one block before the next is
// loaded, so one block is in memory at a time, or two. Log-probabilities are float32
// logits less a log-sum accumulated in float64. A window in which a NaN comes up has
// no likelihood: the perplexity is infinite.
func Perplexity(ctx context.Context, m *model.Model, windows [][]int32, opt Options) (Result, error) {
	if len(windows) == 0 || len(windows[0]) < 2 {
		return Result{}, errors.New("perplexity: no window of two tokens or more")
	}
	name := cmp.Or(opt.Name, "perplexity")
	bar := opt.Progress.Start(name, int64(len(windows)*(m.Blocks()+1)), "windows") // all, once for each block and for the head
	store, err := forward(ctx, m, windows, opt, bar, name)
	if err != nil {
		return Result{}, err
	}
	defer store.Close()
	if opt.Last != nil {
		if err := opt.Last(store); err != nil {
			return Result{}, err
		}
	}
	bar.Part(name+": head", int64(len(windows)))
	return score(ctx, m, windows, store, bar)
}

// forward returns the last block's outputs, to be closed. name names the step that
// bar reports.
func forward(ctx context.Context, m *model.Model, windows [][]int32, opt Options, bar *progress.Bar, name string) (*hidden.Store, error) {
	store, err := hidden.New(m.Engine(), len(windows), len(windows[0]), m.Width(), opt.States)
	if err != nil {
		return nil, err
	}
	if err := passBlocks(ctx, m, windows, store, bar, name); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

func passBlocks(ctx context.Context, m *model.Model, windows [][]int32, store *hidden.Store, bar *progress.Bar, name string) error {
	if err := store.Embed(m, windows); err != nil {
		return err
	}
	st, blocks := m.NewState(), m.Read(0, m.Blocks())
	defer blocks.Close()
	for b := range m.Blocks() {
		bar.Part(fmt.Sprintf("%s: block %d of %d", name, b+1, m.Blocks()), int64(len(windows)))
		block, err := blocks.Next()
		if err != nil {
			return err
		}
		if err := store.Run(ctx, block, st, model.Mode{}, func() { bar.Add(1) }); err != nil {
			return err
		}
		block.Release()
	}
	m.Trim() // the head comes
	return nil
}

// batchTokens is how many tokens pass the head at once: its matrix is streamed
// once a batch, and so many make the stream cheap beside the product.
const batchTokens = 2048

// score turns the last block's outputs into the result.
func score(ctx context.Context, m *model.Model, windows [][]int32, store *hidden.Store, bar *progress.Bar) (Result, error) {
	nll, err := NLL(ctx, m, windows, store, func(n int) { bar.Add(int64(n)) })
	if err != nil {
		return Result{}, err
	}
	return resultOf(nll, len(windows[0])), nil
}

// resultOf is the result of windows of seqLen tokens with these means.
func resultOf(nll []float64, seqLen int) Result {
	total := 0.0
	for _, v := range nll {
		total += v
	}
	r := result(total/float64(len(nll)), len(nll), seqLen)
	square := 0.0
	for _, v := range nll {
		square += (v - float64(r.NLL)) * (v - float64(r.NLL))
	}
	n := float64(len(nll))
	if e := float64(r.Perplexity) * math.Sqrt(square/(n-1)/n); e < math.Inf(1) { // not NaN either
		r.Stderr = e
	}
	return r
}

// NLL returns each window's mean negative log-likelihood, nats per token, from what
// the last block of m put out for it; NaN or infinite where the model gives no
// probability. step is called with the number of windows that are done since the
// last call.
func NLL(ctx context.Context, m *model.Model, windows [][]int32, store *hidden.Store, step func(windows int)) ([]float64, error) {
	head, err := m.LoadHead()
	if err != nil {
		return nil, err
	}
	tokens := len(windows[0])
	perBatch := max(1, batchTokens/tokens)
	nll := make([]float64, 0, perBatch*(tokens-1))
	x, stream := m.NewMat(perBatch*(tokens-1)), m.Engine().NewStream()
	means := make([]float64, 0, len(windows))
	for lo := 0; lo < len(windows); lo += perBatch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		hi := min(lo+perBatch, len(windows))
		var targets []int32
		for i := lo; i < hi; i++ {
			h, err := store.Get(i)
			if err != nil {
				return nil, err
			}
			stream.Copy(x.Slice((i-lo)*(tokens-1), (i-lo+1)*(tokens-1)), h.Slice(0, tokens-1))
			targets = append(targets, windows[i][1:]...)
		}
		nll = nll[:len(targets)]
		if err := head.NLL(x.Slice(0, len(targets)), targets, nll); err != nil {
			return nil, err
		}
		for i := lo; i < hi; i++ {
			mean := 0.0
			for _, v := range nll[(i-lo)*(tokens-1) : (i-lo+1)*(tokens-1)] {
				mean += v
			}
			mean /= float64(tokens - 1)
			means = append(means, mean)
		}
		step(hi - lo)
	}
	return means, nil
}

package pho

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// MinVerify windows are the fewest that a difference is judged by.
const MinVerify = 8

// verifier measures candidates of one model: the mean negative log-likelihood, nats
// per token, of each window.
type verifier struct {
	m       *model.Model
	pruner  *prune.InMemory
	norms   *prune.Norms  // that candidates are screened by; nil before the first
	basis   recipe.Recipe // whose they are
	windows [][]int32
	states  engine.Place // of the hidden states between blocks
}

func newVerifier(m *model.Model, o Options) verifier {
	options := m.Options()
	options.Ahead, options.KeepHead = o.Ahead, o.KeepHead
	m = m.With(options)
	pruner := prune.NewInMemory(m, o.Calibration)
	pruner.States, pruner.Progress, pruner.Warn = o.States, o.Progress, o.Warn
	return verifier{m: m, pruner: pruner, basis: o.basis(), windows: spread(o.Verify.Tokens), states: o.States}
}

// each is what is done with every block once it is pruned.
type each = func(block *model.Block) error

// measure prunes by rec and measures all windows.
func (v *verifier) measure(ctx context.Context, name string, rec recipe.Recipe) (m measurement, err error) {
	var masks prune.Masks
	m.NLL, err = v.run(ctx, v.windows, func(f each) (err error) {
		masks, err = v.pruner.Prune(ctx, name, rec, f)
		return err
	})
	m.Blocks = v.shares(masks)
	return m, err
}

// shares returns what share of each block's weights masks prune, of those that may be.
func (v *verifier) shares(masks prune.Masks) []float64 {
	shares := make([]float64, v.m.Blocks())
	for b := range shares {
		pruned, weights := 0, 0
		for _, l := range v.m.Linears(b) {
			for _, of := range masks[l.Name] {
				pruned += of.Pruned()
				weights += of.Rows * of.Cols
			}
		}
		if weights > 0 {
			shares[b] = float64(pruned) / float64(weights)
		}
	}
	return shares
}

// try prunes by rec with the norms that the default leaves, and measures windows lo to hi.
func (v *verifier) try(ctx context.Context, name string, rec recipe.Recipe, lo, hi int) ([]float64, error) {
	if v.norms == nil {
		var err error
		if v.norms, err = v.pruner.Norms(ctx, "norms for all candidates", v.basis); err != nil {
			return nil, err
		}
	}
	return v.run(ctx, v.windows[lo:hi], func(f each) error {
		_, err := v.norms.Prune(ctx, name, rec, f)
		return err
	})
}

// unpruned returns the mean of all windows of the dense model.
func (v *verifier) unpruned(ctx context.Context) (float64, error) {
	r, err := eval.Perplexity(ctx, v.m, v.windows, eval.Options{States: v.states})
	return min(float64(r.NLL), eval.MaxNLL), err
}

// run measures windows, which pass each block as soon as prune has pruned it.
func (v *verifier) run(ctx context.Context, windows [][]int32, prune func(each) error) ([]float64, error) {
	store, err := hidden.New(v.m.Engine(), len(windows), len(windows[0]), v.m.Width(), v.states)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if err := store.Embed(v.m, windows); err != nil {
		return nil, fmt.Errorf("verification: %w", err)
	}
	st := v.m.NewState()
	err = prune(func(b *model.Block) error { return store.Run(ctx, b, st, model.Mode{}, func() {}) })
	if err != nil {
		return nil, err
	}
	nll, err := eval.NLL(ctx, v.m, windows, store, func(int) {})
	for i, x := range nll {
		if !(x <= eval.MaxNLL) { // a NaN too: who gives no probability loses
			nll[i] = eval.MaxNLL
		}
	}
	return nll, err
}

func mean(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s / float64(len(x))
}

// spread returns the windows in an order in which the first few are spread over
// all: neighbours in a text are alike, and the first are to stand for the rest.
func spread(w [][]int32) [][]int32 {
	n := len(w)
	step := max(1, int(0.618*float64(n)))
	for gcd(step, n) != 1 {
		step++
	}
	out := make([][]int32, n)
	for i := range out {
		out[i] = w[i*step%n]
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

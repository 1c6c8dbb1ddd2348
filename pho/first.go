package pho

import (
	"cmp"
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// firstLinear is the Linear that proxies are measured at: the first of block 0,
// which holds the query. Its statistic costs an embedding and a norm.
type firstLinear struct {
	l        *model.Linear
	w        *tensor.Weight
	in       *stats.Input // nil where no proxy is measured
	resolved recipe.Resolved
}

// newFirstLinear reads it, and gathers its statistic if proxies are to be measured.
func newFirstLinear(ctx context.Context, m *model.Model, opt *Options, proxies bool) (*firstLinear, error) {
	resolved, err := opt.RecipeOf(Equal(opt.Kernels[0])).Resolve()
	if err != nil {
		return nil, err
	}
	block, err := m.LoadBlock(0)
	if err != nil {
		return nil, err
	}
	l := block.FirstInput().Linears[0]
	w, err := l.Read()
	if err != nil {
		return nil, err
	}
	if n, err := resolved.Target.Pruned(l.Rows, l.Cols); err != nil || n == 0 {
		return nil, cmp.Or(err, fmt.Errorf("tensor %s.weight: the target prunes none of %d × %d weights: no candidate differs from another", l.Name, l.Rows, l.Cols))
	}
	first := &firstLinear{l: l, w: w, resolved: resolved}
	if !proxies {
		return first, nil
	}
	acc, st, x := m.Engine().NewStats(l.Cols, stats.Needs{}), m.NewState(), m.NewMat(opt.Calibration.SeqLen)
	for i, ids := range opt.Calibration.Tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.Embed(x, ids); err != nil {
			return nil, fmt.Errorf("calibration: sequence %d: %w", i, err)
		}
		block.Enter(st, x, x)
		acc.Add(x)
	}
	first.in = acc.Input(len(opt.Calibration.Tokens))
	if err := first.in.Check(); err != nil {
		return nil, fmt.Errorf("input of %s: %w", l.Name, err)
	}
	return first, nil
}

// proxy returns the proxy of many candidates there.
func (f *firstLinear) proxy() (*Proxy, error) {
	p, err := NewProxy(f.w, f.in, f.resolved.Target)
	if err != nil {
		return nil, fmt.Errorf("tensor %s.weight: %w", f.l.Name, err)
	}
	return p, nil
}

// proxies returns the five proxies of one candidate there.
func (f *firstLinear) proxies(work []float32, c Coefficients) (Proxies, error) {
	p, err := MeasureProxies(work, f.w, f.in, f.resolved.Target, c)
	if err != nil {
		return p, fmt.Errorf("tensor %s.weight: %s: %w", f.l.Name, c, err)
	}
	return p, nil
}

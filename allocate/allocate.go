// Package allocate says how much of each block of a model is pruned, so that
// the share of the whole is what was asked for: unstructured sparsity only.
//
// A method measures each block, on its dense weights and, if it reads scores,
// on what they saw in the dense model; the measures of all blocks make the
// shares. The letters of all files here:
//
//	b     a block; n_b the number of its weights that may be pruned
//	p     share of all weights that is pruned; p_b that of block b
//	S     Wanda's scores |W_ij|·‖X_j‖ of all Linears of a block, one after the other
//	m_b   the method's measure of block b
package allocate

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/registry"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// Method is a way to allocate.
type Method struct {
	Name   string
	Doc    string       // what it does, in a line
	Cite   string       // its source
	Params []param.Spec // the parameters it reads; the first sets how far shares lie apart

	// One of the three measures a block; all are nil for Uniform. A result that
	// is NaN says that there is nothing to measure.
	FromPlace  func(b, n int) float64                          // block b of n
	FromScores func(s Scores, p param.Values) (float64, error) // needs data
	FromWeight func(w *tensor.Weight) (float64, error)         // of a Linear; the block's is their mean

	// WeightCost returns what FromWeight takes for an out × in Linear: bytes, and
	// operations in float64. nil where FromWeight is.
	WeightCost func(out, in int) (bytes int64, flop float64)

	// spread writes the p_b, whose mean, weighted by n_b, is p.
	spread func(share []float64, blocks []Block, p float64, params param.Values)
}

// Scores calls f with Wanda's scores of each Linear of a block in turn: the
// same again at each call. f must not keep them.
type Scores func(f func(s []float32)) error

// NeedsData reports whether m measures scores.
func (m Method) NeedsData() bool { return m.FromScores != nil }

// Reads reports whether m measures what is in a block.
func (m Method) Reads() bool { return m.FromScores != nil || m.FromWeight != nil }

// Block is what is known of a block.
type Block struct {
	Weights  int              `json:"weights"`  // that may be pruned
	Measure  float64          `json:"measure"`  // the method's
	Sparsity float64          `json:"sparsity"` // the share allocated; 0 if Weights is
	Share    pattern.Sparsity `json:"-"`        // the same, exactly
}

// methods are all methods, the simplest first.
var methods = registry.New("allocation", func(m Method) string { return m.Name },
	Uniform,
	OWL,
	DLP,
	AlphaPruning,
	Depth,
)

// Methods returns all methods, the simplest first.
func Methods() []Method { return methods.All() }

// Names returns the names of all methods, in their order.
func Names() []string { return methods.Names() }

// Lookup returns the method called want.
func Lookup(want string) (Method, error) { return methods.Lookup(want) }

// Defaults returns the defaults of m's parameters.
func (m Method) Defaults() param.Values { return param.Defaults(m.Params) }

// Uniform prunes every block alike.
var Uniform = Method{
	Name: "uniform",
	Doc:  "the same sparsity for every block",
}

// Allocate fills in the shares of blocks, whose weights and measures are known,
// so that
//
//	Σ_b n_b·p_b = p·Σ_b n_b
//
// but for rounding to 15 decimals. uniform says that the method had nothing to
// tell the blocks apart by and all get p: there is one, or their measures are
// equal. A share outside [0, 1) is an error that names block and value.
func (m Method) Allocate(blocks []Block, target pattern.Sparsity, params param.Values) (uniform bool, err error) {
	least, most := math.Inf(1), math.Inf(-1)
	for i := range blocks {
		b := &blocks[i]
		if b.Weights == 0 {
			continue
		}
		if m.FromPlace != nil {
			b.Measure = m.FromPlace(i, len(blocks))
		}
		if m.spread != nil && !finite(b.Measure) {
			return false, fmt.Errorf("%s: measure of block %d is %v, want a finite number", m.Name, i, b.Measure)
		}
		least, most = min(least, b.Measure), max(most, b.Measure)
		b.Share, b.Sparsity = target, target.Float64()
	}
	if m.spread == nil || !(least < most) {
		return true, nil
	}
	share := make([]float64, len(blocks))
	m.spread(share, blocks, target.Float64(), params)
	for i := range blocks {
		b := &blocks[i]
		if b.Weights == 0 {
			continue
		}
		if b.Share, err = pattern.Round(share[i]); err != nil {
			return false, fmt.Errorf("%s: block %d would have %.4g of its weights pruned, want at least 0 and below 1: make %s smaller", m.Name, i, share[i], m.Params[0].Name)
		}
		b.Sparsity = b.Share.Float64()
	}
	return false, nil
}

func finite(v float64) bool { return math.Abs(v) <= math.MaxFloat64 }

// minShare is what a block is pruned at least, unless all together are pruned less.
const minShare = 0.01

// spreadBy is the map of OWL and DLP: of importances i_b, of which the greatest
// keeps 2·half more of its weights than the least,
//
//	kept_b = (i_b − min i)/(max i − min i)·2·half + c
//
// with c such that the mean is 1−p, weighted by n_b. A block that would have
// less than 1 % pruned gets 1 %, and c makes up for it.
func spreadBy(share []float64, blocks []Block, importance func(b Block) float64, half, p float64) {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, b := range blocks {
		if b.Weights > 0 {
			lo, hi = min(lo, importance(b)), max(hi, importance(b))
		}
	}
	kept := make([]float64, len(blocks))
	for i, b := range blocks {
		if b.Weights > 0 {
			kept[i] = (importance(b) - lo) / (hi - lo) * 2 * half
		}
	}
	floor := min(minShare, p)
	fixed := make([]bool, len(blocks)) // at the floor
	for range blocks {
		total, want, mean := 0.0, 0.0, 0.0
		for i, b := range blocks {
			n := float64(b.Weights)
			want += n * p
			if fixed[i] {
				want -= n * floor
				continue
			}
			total += n
			mean += n * kept[i]
		}
		more := false
		for i, b := range blocks {
			switch {
			case b.Weights == 0 || fixed[i]:
			default:
				share[i] = (want+mean)/total - kept[i]
				if share[i] < floor {
					share[i], fixed[i], more = floor, true, true
				}
			}
		}
		if !more {
			return
		}
	}
}

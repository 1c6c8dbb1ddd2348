// Package refine changes a mask after it was selected: in each row, pruned
// weights come back and kept ones go in their place, one for one. Weights stay
// as they are, and so do the counts of rows and of N:M groups.
//
// The letters of all files here:
//
//	W   out × in weight as it came, dense
//	i   a row; j, k columns
//	X   input of the Linear, tokens × in
//	u   the pruned part of a row: u_j = W_ij where j is pruned, else 0
//
// No method depends on GOMAXPROCS: a row is refined by itself, in float64.
package refine

import (
	"context"
	"fmt"
	"sync"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/internal/registry"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Method is a way to refine.
type Method struct {
	Name   string
	Doc    string       // what it does, in a line
	Cite   string       // its source
	Params []param.Spec // the parameters it reads

	NeedsMoments bool // reads a stats.Input's ColSum and ColVar
	NeedsGram    bool // reads a Gram

	// Run exchanges weights of the mask of p. The only error is that of ctx,
	// whose end is noticed within seconds.
	Run func(ctx context.Context, p Problem) (Result, error)
}

// Problem is a mask and what it is refined by.
type Problem struct {
	Kept    *mask.Mask      // changed in place
	W       *tensor.Weight  // rows and columns as Kept
	Scores  []float32       // row-major, what Kept was selected by
	Input   *stats.Input    // with ColSum and ColVar if the method needs them
	Gram    *Gram           // if the method needs it
	Pattern pattern.Pattern // holds for Kept, in its order, and after; zero: none
	Params  param.Values    // of the method
}

// Result is what a refinement did.
type Result struct {
	Exchanges int `json:"exchanges"`

	// Before and After are what the method lowers, summed over the rows.
	Before float64 `json:"error_before"`
	After  float64 `json:"error_after"`
}

// Add adds the result of another part of the same Linear.
func (r *Result) Add(o Result) {
	r.Exchanges += o.Exchanges
	r.Before += o.Before
	r.After += o.After
}

// Layers says which Linears of a block are refined.
type Layers string

const (
	Attention Layers = "attention" // those of the attention, or what stands in its place
	All       Layers = "all"
)

// layers declares which Linears are refined, by default those that the source
// refines.
func layers(source Layers) param.Spec {
	return param.Spec{Name: "refine_layers", Doc: "Linears to refine", Default: string(source), Choices: []any{string(Attention), string(All)}}
}

// cycles declares how many exchanges are made in a row at most.
func cycles(most int) param.Spec {
	return param.Spec{Name: "refine_cycles", Doc: "most exchanges per row", Default: most, Min: 1}
}

// Refines reports whether m, with parameters p, refines a Linear that is of the
// attention or not.
func (m Method) Refines(attention bool, p param.Values) bool {
	if _, ok := param.Declared(m.Params, "refine_layers"); !ok {
		return true
	}
	return attention || Layers(p.Text("refine_layers")) == All
}

// methods are all methods.
var methods = registry.New("refinement", func(m Method) string { return m.Name },
	DSnoT,
	Swaps,
)

// Methods returns all methods.
func Methods() []Method { return methods.All() }

// Names returns the names of all methods, in their order.
func Names() []string { return methods.Names() }

// Lookup returns the method called want.
func Lookup(want string) (Method, error) { return methods.Lookup(want) }

// Register makes m known to recipes until remove is called. It is for programs
// that bring a refinement of their own.
func Register(m Method) (remove func()) { return methods.Add(m) }

// taskRows is how many rows one task refines: few, since some take many cycles
// and some none.
const taskRows = 8

// rowRefiner refines rows, one after the other.
type rowRefiner interface {
	refine(i int) Result
}

func (p *Problem) check() {
	if p.Kept.Rows != p.W.Rows || p.Kept.Cols != p.W.Cols || len(p.Scores) != p.W.Rows*p.W.Cols || len(p.Input.ColSq) != p.W.Cols {
		panic(fmt.Sprintf("refine: mask of %d × %d, weight of %d × %d, %d scores, input of %d",
			p.Kept.Rows, p.Kept.Cols, p.W.Rows, p.W.Cols, len(p.Scores), len(p.Input.ColSq)))
	}
}

// order returns N:M's groups: group g has the columns at[g·M] to at[g·M+M−1], and
// column j is at place[j].
func (p *Problem) order() (at, place []int) {
	at, place = p.Kept.Order, make([]int, p.W.Cols)
	if at == nil {
		at = make([]int, p.W.Cols)
		for j := range at {
			at[j] = j
		}
	}
	for k, j := range at {
		place[j] = k
	}
	return at, place
}

// eachRow refines the rows lo to hi−1 with refiners that several goroutines
// share, each for itself, and sums what they return in the rows' order.
func eachRow(ctx context.Context, lo, hi int, refiners *sync.Pool) (Result, error) {
	rows := make([]Result, hi-lo)
	parallel.For(len(rows), taskRows, func(a, b int) {
		r := refiners.Get().(rowRefiner)
		defer refiners.Put(r)
		for i := a; i < b && ctx.Err() == nil; i++ {
			rows[i] = r.refine(lo + i)
		}
	})
	var sum Result
	for _, r := range rows {
		sum.Add(r)
	}
	return sum, ctx.Err()
}

// Package score says what each weight of a Linear is worth: the methods.
//
// A method writes one score a weight, finite and at least 0; mask.Select then
// prunes the lowest. The letters of all files here:
//
//	W      out × in weight; row i is an output feature, column j an input feature
//	X      input of the Linear, tokens × in; ‖X_j‖ = sqrt(ColSq[j])
//	R_i    Σ_j |W_ij|, sum of row i
//	C_j    Σ_i |W_ij|, sum of column j
//	N_ij   sum of the neighbourhood of W_ij (crepe.go)
//
// A quotient 0/0 (an empty row, column or neighbourhood) counts as 0, and so
// does the score of a weight whose input channel is silent: both go first.
// Where the references get NaN there, they never prune.
//
// No method depends on GOMAXPROCS or on the processor: sums are float64 in a
// fixed order, the rest is float32 with each operation rounded by itself.
package score

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/registry"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Method is a way to score.
type Method struct {
	Name      string
	Doc       string        // the score, in a line
	Cite      string        // its source
	Group     pattern.Group // which weights compete in the source
	NeedsData bool          // reads a stats.Input
	Params    []param.Spec  // the parameters it reads

	// Point returns the point of CRePE's family whose scores are the method's, bit for bit,
	// so that an engine can compute them that knows the family; nil: the method is none.
	Point func(p param.Values) Point

	// Valid says what no parameter's own bounds do; nil: nothing.
	Valid func(p param.Values) error

	// Score writes the score of W_ij to dst[i·in + j]. len(dst) is out·in;
	// the statistic, if the method reads one, has one ColSq a column. A weight
	// that is NaN or infinite is an error that names its position.
	Score func(dst []float32, w *tensor.Weight, s *stats.Input, p param.Values) error
}

// methods are all methods, the simplest first.
var methods = registry.New("method", func(m Method) string { return m.Name },
	Magnitude,
	Wanda,
	RIA,
	CRePE,
)

// Methods returns all methods, the simplest first.
func Methods() []Method { return methods.All() }

// Names returns the names of all methods, in their order.
func Names() []string { return methods.Names() }

// Lookup returns the method called want.
func Lookup(want string) (Method, error) { return methods.Lookup(want) }

// Register makes m known to recipes, and so to all that prunes by one, until
// remove is called. It is for programs that bring a score of their own.
func Register(m Method) (remove func()) { return methods.Add(m) }

// Defaults returns the defaults of m's parameters.
func (m Method) Defaults() param.Values { return param.Defaults(m.Params) }

// Check returns an error if m cannot compute with p. What m does not read is
// not looked at.
func (m Method) Check(p param.Values) error {
	if err := param.Check(m.Params, p); err != nil || m.Valid == nil {
		return err
	}
	return m.Valid(p)
}

// Point is a point of the family that CRePE spans:
//
//	S_ij = (|W_ij|·(α/R_i + β/C_j + δ) + γ·|W_ij|/N_ij)·‖X_j‖^power
//
// N_ij is of a neighbourhood Kernel wide, which is not read if γ is 0.
type Point struct {
	Alpha, Beta, Gamma, Delta, Power float64
	Kernel                           int
}

// Norms returns ‖X_j‖^power of cols channels as float32, as the scores of p have it. s is
// not read if the power is 0.
func (p Point) Norms(cols int, s *stats.Input) ([]float32, error) {
	if p.Power == 0 && s == nil {
		return ones(cols), nil
	}
	return norms(cols, s, p.Power)
}

// ones returns n of them.
func ones(n int) []float32 {
	x := make([]float32, n)
	for j := range x {
		x[j] = 1
	}
	return x
}

// norms returns ‖X_j‖^power = ColSq[j]^(power/2) as float32; a silent channel
// gets 0, but 1 as all others do with power 0, which asks for no norm.
func norms(cols int, s *stats.Input, power float64) ([]float32, error) {
	if s == nil || len(s.ColSq) != cols {
		panic(fmt.Sprintf("score: statistic %v, want one with %d columns", s, cols))
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	n := make([]float32, cols)
	for j, sq := range s.ColSq {
		switch {
		case sq < 0:
			return nil, fmt.Errorf("input channel %d: sum of squared activations is %v, want at least 0", j, sq)
		case sq > 0 || power == 0:
			n[j] = float32(root(sq, power))
		}
		if math.IsInf(float64(n[j]), 0) {
			return nil, fmt.Errorf("input channel %d: norm %v to the power %v does not fit in float32", j, math.Sqrt(sq), power)
		}
	}
	return n, nil
}

// root returns sq^(power/2); for the powers in use by square roots, which are
// the same on every processor.
func root(sq, power float64) float64 {
	switch power {
	case 1:
		return math.Sqrt(sq)
	case 0.5:
		return math.Sqrt(math.Sqrt(sq))
	}
	return math.Pow(sq, power/2)
}

func checkDst(dst []float32, w *tensor.Weight) {
	if len(dst) != w.Rows*w.Cols {
		panic(fmt.Sprintf("score: len(dst) = %d, want %d × %d", len(dst), w.Rows, w.Cols))
	}
}

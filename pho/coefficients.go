// Package pho finds the coefficients of crepe's score for a model: PHO, proxy-based
// hyperparameter optimisation (CRePE, section 4), and a search that measures instead.
//
// Stage 1 asks a sampler for candidates and rates them by an objective (Objectives).
// The default one prunes the whole model by the norms of inputs behind blocks that the
// default coefficients have pruned, which are gathered once for all candidates, and takes
// perplexity on a few windows of held-out text. The paper's, Gini_pruned, reads one Linear (Proxy). Stage 2 tries the
// best on more windows, prunes those in full that may still win (race), and measures
// perplexity; the lowest wins. Wanda, RIA, the default coefficients and those of known
// models always take part, so that the winner is not above them on that text.
package pho

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
)

// Coefficients are a candidate: the parameters of crepe, and what compares.
type Coefficients struct {
	Alpha   float64 `json:"alpha"`           // of the row term
	Beta    float64 `json:"beta"`            // of the column term
	Gamma   float64 `json:"gamma"`           // of the neighbourhood term
	Delta   float64 `json:"delta,omitempty"` // of the weight itself
	Kernel  int     `json:"kernel"`
	Power   float64 `json:"power"`             // of the activation norm
	Compare string  `json:"compare,omitempty"` // of unstructured sparsity: "matrix" or "row"; empty: "matrix"

	Depth *Depth          `json:"depth,omitempty"` // of unstructured sparsity: how it is spread over the blocks; nil: evenly
	Kinds map[string]Kind `json:"kinds,omitempty"` // by kind of Linear (recipe.Kind), in place of the above
}

// Kind holds what a kind of Linear has of its own. Alpha and Beta have the sum that
// those of all kinds have.
type Kind struct {
	Alpha float64 `json:"alpha"`
	Beta  float64 `json:"beta"`
	Power float64 `json:"power"`
}

// Depth holds the parameters of allocate.Depth.
type Depth struct {
	Slope float64 `json:"slope"`
	Curve float64 `json:"curve"`
	First float64 `json:"first"`
}

// Share is the column term's part of row and column.
func (k Kind) Share() float64 { return quotient(k.Beta, k.Alpha+k.Beta) }

// PaperPower is the power that CRePE and RIA are published with.
const PaperPower = score.DefaultPower

// RIA, Equal and Wanda are methods of the literature as candidates, Default is crepe by
// default.
func RIA(kernel int) Coefficients {
	return Coefficients{Alpha: 1, Beta: 1, Kernel: kernel, Power: PaperPower}
}

// Equal is CRePE with the coefficients that the paper begins at.
func Equal(kernel int) Coefficients {
	return of(score.Paper(), kernel)
}

// Wanda is |W|·‖X‖, compared within rows.
func Wanda(kernel int) Coefficients {
	return Coefficients{Delta: 1, Kernel: kernel, Power: 1, Compare: pattern.Row.String()}
}

// Default is what crepe does if nothing is said.
func Default(kernel int) Coefficients {
	c := of(score.CRePE.Defaults(), kernel)
	c.Compare = score.CRePE.Group.String()
	return c
}

func of(p param.Values, kernel int) Coefficients {
	return Coefficients{
		Alpha: p.Number("alpha"), Beta: p.Number("beta"), Gamma: p.Number("gamma"), Delta: p.Number("delta"),
		Kernel: kernel, Power: p.Number("power"),
	}
}

// Of returns the coefficients that a recipe with method crepe says.
func Of(r recipe.Recipe) (Coefficients, error) {
	r = r.WithDefaults()
	if r.Method != score.CRePE.Name {
		return Coefficients{}, fmt.Errorf("recipe: method %s, want %s", r.Method, score.CRePE.Name)
	}
	resolved, err := r.Resolve()
	if err != nil {
		return Coefficients{}, fmt.Errorf("recipe: %w", err)
	}
	p := r.Params
	c := of(p, p.Whole("kernel"))
	if r.Compare == pattern.Row.String() {
		c.Compare = r.Compare
	}
	switch r.Allocate {
	case "":
	case allocate.Depth.Name:
		c.Depth = &Depth{p.Number("depth_slope"), p.Number("depth_curve"), p.Number("depth_first")}
	default:
		return c, fmt.Errorf("recipe: allocate %s, want %s or none", r.Allocate, allocate.Depth.Name)
	}
	for kind, all := range resolved.Kinds {
		for name := range r.Kinds[kind] {
			if name != "alpha" && name != "beta" && name != "power" {
				return c, fmt.Errorf("recipe: kinds: %s: %s, want alpha, beta or power", kind, name)
			}
		}
		c.setKind(kind, Kind{all.Number("alpha"), all.Number("beta"), all.Number("power")})
	}
	return c, nil
}

// At returns the point of the paper's triangle α + β + γ = 1 that (u, v) of the unit
// square stands for:
//
//	α = 1 − √u,  β = √u·(1 − v),  γ = √u·v
//
// which is continuous and keeps areas, so that even points stay even. γ is 0 on
// the edge v = 0. Coefficients are multiples of 10⁻⁶: processors that round the
// sampler's arithmetic differently still propose the same candidates.
func At(u, v float64, kernel int) Coefficients {
	s := math.Sqrt(u)
	a, c := math.Round(steps*(1-s)), math.Round(steps*s*v)
	c = min(c, steps-a)
	return Coefficients{Alpha: a / steps, Beta: (steps - a - c) / steps, Gamma: c / steps, Kernel: kernel, Power: PaperPower}
}

const steps = 1e6

// onGrid returns v as a multiple of 10⁻⁶.
func onGrid(v float64) float64 { return math.Round(steps*v) / steps }

// Start is where in the unit square α = β = γ.
var Start = []float64{4.0 / 9, 0.5}

// Normalized returns c with α + β + γ = 1; as it is where they are 0.
func (c Coefficients) Normalized() Coefficients {
	s := c.Alpha + c.Beta + c.Gamma
	if s == 0 {
		return c
	}
	c.Alpha, c.Beta, c.Gamma, c.Delta = c.Alpha/s, c.Beta/s, c.Gamma/s, c.Delta/s
	kinds := c.Kinds
	c.Kinds = nil
	for kind, k := range kinds {
		c.setKind(kind, Kind{k.Alpha / s, k.Beta / s, k.Power})
	}
	return c
}

// Kind returns what c has for a kind of Linear; that of "" is for all that have none of
// their own.
func (c Coefficients) Kind(name string) Kind {
	if k, ok := c.Kinds[name]; ok {
		return k
	}
	return Kind{c.Alpha, c.Beta, c.Power}
}

// setKind gives a kind of Linear its own.
func (c *Coefficients) setKind(name string, k Kind) {
	if c.Kinds == nil {
		c.Kinds = map[string]Kind{}
	}
	c.Kinds[name] = k
}

// depth returns how c spreads the sparsity over the blocks.
func (c Coefficients) depth() Depth {
	if c.Depth == nil {
		return Depth{}
	}
	return *c.Depth
}

// resolution is how far two normalised candidates must differ in a coefficient
// to be verified both: a finer difference moves a hundredth of a score at most.
const resolution = 0.01

// Duplicates reports whether c and d are one candidate to stage 2. Without γ
// the kernel is not read.
func (c Coefficients) Duplicates(d Coefficients) bool {
	a, b := c.Normalized(), d.Normalized()
	near := func(x, y float64) bool { return math.Abs(x-y) < resolution }
	if !near(a.Gamma, b.Gamma) || !near(a.Delta, b.Delta) || a.Compare != b.Compare || a.Gamma+b.Gamma > 0 && a.Kernel != b.Kernel {
		return false
	}
	if d, e := a.depth(), b.depth(); !near(d.Slope, e.Slope) || !near(d.Curve, e.Curve) || !near(d.First, e.First) {
		return false
	}
	for _, name := range append(slices.Concat(slices.Collect(maps.Keys(a.Kinds)), slices.Collect(maps.Keys(b.Kinds))), "") {
		k, l := a.Kind(name), b.Kind(name)
		if !near(k.Alpha, l.Alpha) || !near(k.Beta, l.Beta) || !near(k.Power, l.Power) {
			return false
		}
	}
	return true
}

// params returns the parameters of crepe with the coefficients of all kinds.
func (c Coefficients) params() param.Values {
	return param.Values{"alpha": c.Alpha, "beta": c.Beta, "gamma": c.Gamma, "delta": c.Delta, "kernel": c.Kernel, "power": c.Power}
}

// Valid returns an error if crepe cannot score by c.
func (c Coefficients) Valid() error {
	_, err := c.Of(recipe.Recipe{}).Resolve()
	return err
}

// Of returns r with method crepe and these coefficients.
func (c Coefficients) Of(r recipe.Recipe) recipe.Recipe {
	r.Method = score.CRePE.Name
	for name, v := range c.params() {
		r = r.With(name, v)
	}
	if r.Compare = ""; r.Pattern == "" {
		r.Compare = cmp.Or(c.Compare, pattern.Matrix.String())
	}
	if c.Depth != nil && r.Pattern == "" {
		r.Allocate = allocate.Depth.Name
		r = r.With("depth_slope", c.Depth.Slope).With("depth_curve", c.Depth.Curve).With("depth_first", c.Depth.First)
	}
	r.Kinds = nil
	for name, k := range c.Kinds {
		r = r.WithKind(name, "alpha", k.Alpha).WithKind(name, "beta", k.Beta).WithKind(name, "power", k.Power)
	}
	return r
}

// String is "α 0.3 β 0.2 γ 0.5 kernel 9 power 0.5".
func (c Coefficients) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "α %.6g β %.6g γ %.6g", c.Alpha, c.Beta, c.Gamma)
	if c.Delta != 0 {
		fmt.Fprintf(&b, " δ %.6g", c.Delta)
	}
	if c.Gamma != 0 {
		fmt.Fprintf(&b, " kernel %d", c.Kernel)
	}
	fmt.Fprintf(&b, " power %.4g", c.Power)
	if c.Compare == pattern.Row.String() {
		b.WriteString(" in rows")
	}
	if d := c.Depth; d != nil {
		fmt.Fprintf(&b, " depth %.4g %.4g %.4g", d.Slope, d.Curve, d.First)
	}
	if n := len(c.Kinds); n > 0 {
		fmt.Fprintf(&b, ", %d kinds of their own", n)
	}
	return b.String()
}

// Key is c as JSON: equal candidates have equal keys.
func (c Coefficients) Key() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("pho: candidate %v has no JSON: %v", c, err))
	}
	return string(text)
}

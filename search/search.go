// Package search proposes points and learns from their values: samplers behind
// one ask/tell interface, and the store that lets a search go on where it
// stopped.
//
// All samplers minimise over the unit cube. They are deterministic: the same
// seed and the same values told give the same points. So a sampler's state
// needs no storing: Replay asks and tells it again what the store has.
package search

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/splitmix"
)

// A Sampler proposes points of the unit cube. Every Ask is answered by a Tell
// of the value there before the next.
type Sampler interface {
	Ask() ([]float64, error)
	Tell(x []float64, value float64) error // value is finite
}

// Options of a sampler.
type Options struct {
	Seed  uint64
	Start []float64 // where cmaes, hillclimb and descent begin, a point of the cube
}

var samplers = []struct {
	name string
	make func(Options) (Sampler, error)
}{
	{"cmaes", newCMA},
	{"tpe", newTPE},
	{"random", newRandom},
	{"hillclimb", newHillClimb},
	{"descent", newDescent},
}

// Names returns the samplers' names, the default first.
func Names() []string {
	var names []string
	for _, s := range samplers {
		names = append(names, s.name)
	}
	return names
}

// Check returns an error if no sampler is called name.
func Check(name string) error {
	if !slices.Contains(Names(), name) {
		return fmt.Errorf("unknown sampler %q, want one of %s", name, strings.Join(Names(), ", "))
	}
	return nil
}

// New returns the sampler called name. The cube has as many dimensions as
// o.Start.
func New(name string, o Options) (Sampler, error) {
	if err := Check(name); err != nil {
		return nil, err
	}
	if len(o.Start) == 0 || slices.ContainsFunc(o.Start, func(v float64) bool { return !(v >= 0 && v <= 1) }) {
		panic(fmt.Sprintf("search: start %v, want a point of the unit cube", o.Start))
	}
	for _, s := range samplers {
		if s.name == name {
			return s.make(o)
		}
	}
	panic("search: New: unreachable")
}

// Replay brings a new sampler to where it was after trials. The points it asks
// must be theirs.
func Replay(s Sampler, trials []Trial) error {
	for _, t := range trials {
		x, err := s.Ask()
		if err != nil {
			return err
		}
		if !slices.Equal(x, t.X) {
			return fmt.Errorf("trial %d is at %v, but this sampler asks %v there: the study is of another version or processor", t.Number, t.X, x)
		}
		if err := s.Tell(x, t.Value); err != nil {
			return err
		}
	}
	return nil
}

// Ahead returns what s asks for next, n points, if each turns out to be of the same
// value. s cannot be told anything else afterwards.
func Ahead(s Sampler, n int, value float64) ([][]float64, error) {
	var points [][]float64
	for range n {
		x, err := s.Ask()
		if err != nil {
			return nil, err
		}
		if err := s.Tell(x, value); err != nil {
			return nil, err
		}
		points = append(points, x)
	}
	return points, nil
}

// grid is what coordinates are multiples of, so that processors which round
// intermediate results differently still ask the same points.
const grid = 1 << 20

// snap returns x within the cube and on the grid.
func snap(x []float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = math.Round(min(max(v, 0), 1)*grid) / grid
	}
	return out
}

// rng draws points.
type rng struct{ splitmix.Source }

func newRNG(seed uint64) rng { return rng{splitmix.Source(seed)} }

// uniform returns a number in (0, 1).
func (r *rng) uniform() float64 { return (float64(r.Next()>>11) + 0.5) / (1 << 53) }

func (r *rng) point(dim int) []float64 {
	x := make([]float64, dim)
	for i := range x {
		x[i] = r.uniform()
	}
	return snap(x)
}

// random draws evenly.
type random struct {
	rng rng
	dim int
}

func newRandom(o Options) (Sampler, error) {
	return &random{rng: newRNG(o.Seed), dim: len(o.Start)}, nil
}

func (r *random) Ask() ([]float64, error)       { return r.rng.point(r.dim), nil }
func (r *random) Tell([]float64, float64) error { return nil }

// Package rebuild optimises the kept weights of several Linears together, by what they
// compute as a whole.
package rebuild

import (
	"math"

	"github.com/crepe-llm/crepe/internal/registry"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/param"
)

// Method is a way to rebuild.
type Method struct {
	Name   string
	Doc    string       // what it does, in a line
	Cite   string       // its source
	Params []param.Spec // the parameters it reads
}

// Subblock rebuilds the attention of a block, then its feed-forward network.
var Subblock = Method{
	Name: "subblock",
	Doc:  "optimises the kept weights of each attention, then of each MLP, towards what it yields in the dense model",
	Cite: "after arXiv:2510.14444; Adam: Kingma & Ba 2015, arXiv:1412.6980",
	Params: []param.Spec{
		{Name: "rebuild_epochs", Doc: "how often the calibration sequences pass", Default: 4, Min: 1, Max: 1000},
		{Name: "rebuild_rate", Doc: "learning rate of Adam", Default: 1e-4, Min: 1e-8, Max: 1},
		{Name: "rebuild_batch", Doc: "sequences of a step", Default: 2, Min: 1, Max: 1 << 16},
		{Name: "rebuild_schedule", Doc: "how the rate goes over the steps: down to 0 as a cosine, or not", Default: "cosine", Choices: []any{"cosine", "constant"}},
	},
}

// methods are all methods.
var methods = registry.New("rebuilding", func(m Method) string { return m.Name }, Subblock)

// Methods returns all methods.
func Methods() []Method { return methods.All() }

// Lookup returns the method called want.
func Lookup(want string) (Method, error) { return methods.Lookup(want) }

// Schedule is how long weights are optimised, and in which steps.
type Schedule struct {
	Epochs, Batch int
	Rate          float64
	Cosine        bool
}

// ScheduleOf reads Subblock's parameters.
func ScheduleOf(p param.Values) Schedule {
	return Schedule{
		Epochs: p.Whole("rebuild_epochs"), Batch: p.Whole("rebuild_batch"),
		Rate: p.Number("rebuild_rate"), Cosine: p.Text("rebuild_schedule") == "cosine",
	}
}

// Steps returns how many steps an epoch of n sequences has.
func (s Schedule) Steps(n int) int { return (n + s.Batch - 1) / s.Batch }

// RateAt returns the learning rate of step i of so many.
func (s Schedule) RateAt(i, steps int) float64 {
	if !s.Cosine {
		return s.Rate
	}
	return s.Rate * (1 + math.Cos(math.Pi*float64(i)/float64(steps))) / 2
}

// Order returns the sequences 0 to n-1 in an order of chance, another in every epoch.
func Order(n, epoch int) []int {
	draws := splitmix.Source(epoch)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	for i := n - 1; i > 0; i-- { // Fisher and Yates
		j := int(draws.Next() % uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// Result is what rebuilding did to a branch of a block. Errors are means over all
// calibration tokens of ‖output − dense‖²/‖dense‖², both with what the shortcut brings.
type Result struct {
	Before float64 `json:"error_before"`
	After  float64 `json:"error_after"` // at most Before
	Epoch  int     `json:"epoch"`       // after which the weights that were taken were best; 0: none were better
}

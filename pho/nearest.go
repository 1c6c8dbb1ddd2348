package pho

import (
	"cmp"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/recipe"
)

// Nearest returns the built-in recipe that takes part in a search of m at r's target:
// of those for N:M, or for unstructured sparsity, one whose model is of m's class before
// others, then the one of the nearest sparsity and pattern, then of the nearest number
// of weights. Kinds that m has no Linear of are left out of it.
func Nearest(m *model.Model, r recipe.Recipe) []Known {
	weights, kinds := 0.0, map[string]bool{}
	for b := range m.Blocks() {
		for _, l := range m.Linears(b) {
			weights += float64(l.Rows) * float64(l.Cols)
			kinds[recipe.Kind(l.Name)] = true
		}
	}
	want, nm := shareOf(r)
	type ranked struct {
		Known
		class, target, size float64
	}
	var all []ranked
	for _, b := range recipe.Builtins() {
		share, of := shareOf(b.Recipe)
		c, err := Of(b.Recipe)
		if err != nil || (of == 0) != (nm == 0) {
			continue
		}
		for kind := range c.Kinds {
			if !kinds[kind] {
				delete(c.Kinds, kind)
			}
		}
		k := ranked{Known: Known{recipe.BuiltinPrefix + b.Name, c}}
		if b.Class != m.Config.Architecture {
			k.class = 1
		}
		k.target = math.Abs(share-want) + math.Abs(float64(of-nm))/pattern.MaxOf
		k.size = math.Abs(math.Log(weights / float64(b.Weights)))
		all = append(all, k)
	}
	if len(all) == 0 {
		return nil
	}
	best := slices.MinFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.target, b.target), cmp.Compare(a.size, b.size))
	})
	return []Known{best.Known}
}

// shareOf returns the share that r prunes, and M of N:M, 0 for none.
func shareOf(r recipe.Recipe) (share float64, of int) {
	r = r.WithDefaults()
	if p, err := pattern.ParsePattern(r.Pattern); err == nil {
		return p.Sparsity().Float64(), p.Of
	}
	s, err := pattern.ParseSparsity(r.Sparsity)
	if err != nil {
		return 0, 0
	}
	return s.Float64(), 0
}

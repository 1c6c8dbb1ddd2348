package recipe

import (
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/internal/registry"
)

// Preset is a recipe's method and steps for a budget of time: what measured best within
// it (docs/quality.md).
type Preset struct {
	Name string
	Doc  string // in a line

	with func(r Recipe) Recipe // adds to a recipe that has its pattern
}

// presets are in the order of the time they take.
var presets = registry.New("preset", func(p Preset) string { return p.Name },
	Preset{"fast", "about the time of wanda", func(r Recipe) Recipe {
		r.Method = DefaultMethod
		return r.spread()
	}},
	Preset{"balanced", "at most 3 times the time of wanda: kept weights are adjusted", func(r Recipe) Recipe {
		r.Method = "admm"
		return r.spread()
	}},
	Preset{"best", "at most 20 times the time of wanda: and then optimised, each attention and MLP as a whole", func(r Recipe) Recipe {
		r.Method, r.Rebuild = "admm", "subblock"
		return r.spread().unless("rebuild_epochs", 8)
	}},
)

// spread gives the first block less to lose, where blocks may differ.
func (r Recipe) spread() Recipe {
	if r.Pattern != "" {
		return r
	}
	r.Allocate = allocate.Depth.Name
	return r.unless("depth_slope", 0.0).unless("depth_first", -1.0)
}

// unless returns r with a parameter set to a value, unless it is set already.
func (r Recipe) unless(name string, value any) Recipe {
	if _, set := r.Params[name]; set {
		return r
	}
	return r.With(name, value)
}

// Presets returns all presets.
func Presets() []Preset { return presets.All() }

// WithPreset returns r with the method and steps of a preset for r's pattern.
func (r Recipe) WithPreset(name string) (Recipe, error) {
	p, err := presets.Lookup(name)
	if err != nil {
		return r, err
	}
	for _, s := range steps {
		if v := *s.Field(&r); v != "" {
			return r, fmt.Errorf("%s %s: want none beside preset %s, which has its own", s.Key, v, name)
		}
	}
	return p.with(r), nil
}

// PresetNames returns the names of all.
func PresetNames() []string { return presets.Names() }

// PresetHelp lists the presets.
func PresetHelp() string {
	var b strings.Builder
	for _, p := range Presets() {
		fmt.Fprintf(&b, "  %-12s %s\n", p.Name, p.Doc)
	}
	return b.String()
}

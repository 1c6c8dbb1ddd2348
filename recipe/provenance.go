package recipe

import "github.com/crepe-llm/crepe/provenance"

// Provenance returns what a result depends on of r: every value, those that r
// leaves to defaults included. Compute is not among them: the engine's ID says
// what it came to.
func (r Recipe) Provenance() (provenance.Record, error) {
	r = r.WithDefaults()
	r.Compute = ""
	return provenance.Values("recipe", r)
}

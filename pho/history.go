package pho

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/search"
)

// History is what a study's records tell of a search, or of a study of proxies,
// finished or not.
type History struct {
	Trials   []Rated   // of stage 1, in their order
	Measured []Sighted // of stage 2, in the order in which they were measured
	Configs  []Config  // of a study of proxies
	Proxies  []ProxyResult
}

// Rated is a candidate and the value that the sampler was told of it.
type Rated struct {
	Coefficients
	Value     float64
	Objective string // that Value is of
}

// Sighted is one measurement of a candidate in stage 2.
type Sighted struct {
	Coefficients
	Full       bool        // pruned in full, else screened
	Windows    int         // of this measurement
	Perplexity eval.Number // of these windows
}

// Rating says what Rated.Value is.
func (h *History) Rating() string {
	if len(h.Trials) > 0 && !measures(h.Trials[0].Objective) {
		return h.Trials[0].Objective
	}
	return "NLL"
}

// ReadHistory returns the history of a study. One of another kind has an empty one.
func ReadHistory(s *search.Saved) (*History, error) {
	h := &History{}
	trials, err := s.Trials()
	if err != nil {
		return nil, err
	}
	for _, t := range trials {
		var of label
		if err := json.Unmarshal(t.Of, &of); err != nil {
			return nil, fmt.Errorf("trial %d: it does not say of what candidate: the study is of another version", t.Number)
		}
		h.Trials = append(h.Trials, Rated{of.Coefficients, t.Value, of.Objective})
	}
	for _, r := range s.Records {
		if r.Kind == fullKind || r.Kind == screenKind {
			m, err := sighted(r)
			if err != nil {
				return nil, err
			}
			h.Measured = append(h.Measured, m)
		}
	}
	for n, r := range s.Of(configKind) {
		var c Config
		if err := json.Unmarshal([]byte(r.Value), &c); err != nil {
			return nil, fmt.Errorf("configuration %d: %w", n, err)
		}
		h.Configs = append(h.Configs, c)
	}
	if len(h.Configs) >= LeastConfigs {
		h.Proxies = Correlate(h.Configs)
	}
	return h, nil
}

// sighted reads a measurement of stage 2.
func sighted(r search.SavedRecord) (Sighted, error) {
	text, _, _ := strings.Cut(r.Key, " from ")
	var m measurement
	out := Sighted{Full: r.Kind == fullKind}
	if err := json.Unmarshal([]byte(text), &out.Coefficients); err != nil {
		return out, fmt.Errorf("%s of %s: %w", r.Kind, r.Key, err)
	}
	if err := json.Unmarshal([]byte(r.Value), &m); err != nil {
		return out, fmt.Errorf("%s of %s: %w", r.Kind, r.Key, err)
	}
	if len(m.NLL) == 0 {
		return out, fmt.Errorf("%s of %s: no window", r.Kind, r.Key)
	}
	out.Windows, out.Perplexity = len(m.NLL), eval.Number(math.Exp(mean(m.NLL)))
	return out, nil
}

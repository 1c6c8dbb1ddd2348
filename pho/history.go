package pho

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/search"
)

// History is what a study's records tell of a search, or of a study of proxies,
// finished or not.
type History struct {
	Trials  []Rated     // of stage 1, in their order
	Checked []Checked   // candidates that a proxy was held against perplexity on
	Check   *ProxyCheck // what that said; nil: none was asked for, or it is at work
	Stage2  *Stage2     // nil: it has not begun
	Configs []Config    // of a study of proxies
	Proxies []ProxyResult
}

// Rated is a candidate and what it was rated at.
type Rated struct {
	Coefficients
	Value     float64 `json:"value"`     // nats per token, or the proxy
	Objective string  `json:"objective"` // that Value is of
}

// Checked is a candidate rated by a proxy, and its perplexity on Few windows.
type Checked struct {
	Rated
	Perplexity eval.Number
}

// Stage2 is how far stage 2 has come.
type Stage2 struct {
	Windows    int
	Dense      eval.Number // perplexity of the dense model on them; 0: not measured yet
	Candidates []Candidate // that take part
	Steps      []Step      // what was measured of them, in that order
	Over       bool        // those not pruned in full are given up
}

// Best is the candidate that was pruned in full at the lowest perplexity, by its number;
// −1: none was yet.
func (s *Stage2) Best() int {
	best := -1
	for i, c := range s.Candidates {
		if c.Perplexity > 0 && (best < 0 || c.Perplexity < s.Candidates[best].Perplexity) {
			best = i
		}
	}
	return best
}

// Step is one measurement in stage 2.
type Step struct {
	Candidate  int         // of Stage2.Candidates
	Full       bool        // pruned in full, else tried by the default's norms
	Windows    int         // that it has been measured on by then
	Perplexity eval.Number // of these
	Chances    []float64   // of all candidates, after this, of being the best if all were pruned in full; nil: not known yet
}

// Measured reports whether trials were rated by perplexity, not by a proxy.
func (h *History) Measured() bool { return len(h.Trials) > 0 && measures(h.Trials[0].Objective) }

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
	if err := h.readCheck(s); err != nil {
		return nil, err
	}
	if h.Stage2, err = readStage2(s); err != nil {
		return nil, err
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

// readMeasurement reads the value of a record.
func readMeasurement(kind string, r search.Record) (measurement, error) {
	var m measurement
	err := json.Unmarshal([]byte(r.Value), &m)
	if err == nil && len(m.NLL) == 0 {
		err = errors.New("no window")
	}
	if err == nil {
		err = checkNLL(m.NLL, len(m.NLL))
	}
	if err != nil {
		return m, fmt.Errorf("%s of %s: %w", kind, r.Key, err)
	}
	return m, nil
}

// screenKey is the key of a screening of c from a window on.
func screenKey(c Coefficients, from int) string { return fmt.Sprintf("%s from %d", c.Key(), from) }

// readCheck reads what a proxy was held against.
func (h *History) readCheck(s *search.Saved) error {
	records := s.Of(checkKind)
	if records == nil {
		return nil
	}
	screened := map[string]search.Record{}
	for _, r := range s.Of(screenKind) {
		screened[r.Key] = r
	}
	var values, nll []float64
	for n, r := range records {
		var c Checked
		if err := json.Unmarshal([]byte(r.Value), &c.Rated); err != nil || r.Key != strconv.Itoa(n) {
			return fmt.Errorf("check %s is %q, want candidate %d", r.Key, r.Value, n)
		}
		m, err := readMeasurement(screenKind, screened[screenKey(c.Coefficients, 0)])
		if err != nil {
			return fmt.Errorf("check %d: %w", n, err)
		}
		values, nll = append(values, c.Value), append(nll, mean(m.NLL))
		c.Perplexity = eval.Number(math.Exp(mean(m.NLL)))
		h.Checked = append(h.Checked, c)
	}
	if len(nll) == checked {
		h.Check = newProxyCheck(h.Checked[0].Objective, values, nll)
	}
	return nil
}

// readStage2 goes through what was measured as verify did.
func readStage2(s *search.Saved) (*Stage2, error) {
	records := s.Of(fieldKind)
	if records == nil {
		return nil, nil
	}
	var f field
	if err := json.Unmarshal([]byte(records[0].Value), &f); err != nil || f.Windows < 1 {
		return nil, fmt.Errorf("%s: %.200q, want the candidates of stage 2", fieldKind, records[0].Value)
	}
	out := &Stage2{Windows: f.Windows, Candidates: f.Candidates}
	r := &race{windows: f.Windows, entrants: make([]entrant, len(f.Candidates))}
	for _, of := range s.Records {
		switch of.Kind {
		case denseKind:
			m, err := readMeasurement(of.Kind, of.Record)
			if err != nil {
				return nil, err
			}
			out.Dense = eval.Number(math.Exp(m.NLL[0]))
		case fullKind, screenKind:
			i, err := r.recall(f.Candidates, of)
			if err != nil {
				return nil, err
			}
			if i < 0 {
				continue
			}
			e := r.entrants[i]
			step := Step{Candidate: i, Full: of.Kind == fullKind, Windows: len(e.screened), Perplexity: eval.Number(math.Exp(mean(e.screened)))}
			if step.Full {
				step.Windows, step.Perplexity = r.windows, eval.Number(math.Exp(mean(e.full)))
			} else if step.Windows < r.firstLook() {
				continue // of stage 1
			}
			step.Chances = r.known(out.Dense)
			out.Steps = append(out.Steps, step)
		}
	}
	out.Over = r.known(out.Dense) != nil && r.next() < 0 || !slices.ContainsFunc(r.entrants, func(e entrant) bool { return e.full == nil })
	describe(out.Candidates, r)
	for i, e := range r.entrants {
		out.Candidates[i].GivenUp = out.Over && e.full == nil
	}
	return out, nil
}

// recall takes a measurement of one of the candidates, whose number it returns; −1: it
// is of none.
func (r *race) recall(list []Candidate, of search.SavedRecord) (int, error) {
	m, err := readMeasurement(of.Kind, of.Record)
	if err != nil {
		return 0, err
	}
	found := -1
	for i, c := range list {
		e := &r.entrants[i]
		switch {
		case of.Kind == fullKind && of.Key == c.Key():
			if err := checkNLL(m.NLL, r.windows); err != nil {
				return 0, fmt.Errorf("%s of %s: %w", of.Kind, of.Key, err)
			}
			e.full, e.blocks = m.NLL, m.Blocks
		case of.Kind == screenKind && of.Key == screenKey(c.Coefficients, len(e.screened)):
			e.screened = append(e.screened, m.NLL...)
			if len(e.screened) > r.windows {
				return 0, fmt.Errorf("%s of %s: %d windows, want at most %d: the study is damaged", of.Kind, of.Key, len(e.screened), r.windows)
			}
		default:
			continue
		}
		if found < 0 {
			found = i
		}
	}
	return found, nil
}

// known returns the chances as verify knows them: nil before all entrants have been
// looked at and the best of them was pruned in full.
func (r *race) known(dense eval.Number) []float64 {
	for _, e := range r.entrants {
		if len(e.screened) < r.firstLook() {
			return nil
		}
	}
	if i := r.lowest(); dense > 0 && len(r.entrants[i].screened) == r.windows {
		r.expect(i, math.Log(float64(dense)))
		return r.chances()
	}
	return nil
}

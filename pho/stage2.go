package pho

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/search"
)

// The kinds of stage 2's records. Values are a measurement; keys are candidates as
// JSON, of a screening with the window that it begins at. What takes part is written
// down for readers of the study: its value is a field.
const (
	denseKind  = "dense" // the one key is empty
	fullKind   = "full"
	screenKind = "screening"
	fieldKind  = "field" // the one key is empty
)

type measurement struct {
	NLL    []float64 `json:"nll"`              // by window, nats per token; of the dense model their mean
	Blocks []float64 `json:"blocks,omitempty"` // of the model pruned in full: Candidate.Blocks
}

// field is who takes part in stage 2, and on how many windows.
type field struct {
	Windows    int         `json:"windows"`
	Candidates []Candidate `json:"candidates"`
}

// checkNLL refuses what cannot have been measured, as a damaged study holds it.
func checkNLL(nll []float64, windows int) error {
	if len(nll) != windows {
		return fmt.Errorf("%d windows, want %d: the study is damaged; name another file, or remove it", len(nll), windows)
	}
	for _, v := range nll {
		if !(v > -1 && v <= eval.MaxNLL) { // rounding may take a certain token below 0
			return fmt.Errorf("%v nats per token: the study is damaged; name another file, or remove it", v)
		}
	}
	return nil
}

// recall takes up the measurements of an earlier run.
func (s *searcher) recall(ctx context.Context) error {
	for _, kind := range []string{denseKind, fullKind, screenKind} {
		records, err := s.study.Records(ctx, kind)
		if err != nil {
			return err
		}
		for _, r := range records {
			var m measurement
			if err := json.Unmarshal([]byte(r.Value), &m); err != nil {
				return fmt.Errorf("%s of %s: %w", kind, r.Key, err)
			}
			s.done[kind+r.Key] = m
		}
	}
	return nil
}

// once returns what an earlier run has measured of so many windows, or measures and
// keeps it.
func (s *searcher) once(ctx context.Context, kind, key string, windows int, measure func() (measurement, error)) (measurement, error) {
	if m, ok := s.done[kind+key]; ok {
		if err := checkNLL(m.NLL, windows); err != nil {
			return m, fmt.Errorf("%s of %s: %w", kind, key, err)
		}
		return m, nil
	}
	m, err := measure()
	if err != nil {
		return m, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	ctx = context.WithoutCancel(ctx) // what is finished is kept, also after an interrupt
	if err := s.study.Add(ctx, kind, search.Record{Key: key, Value: string(text)}); err != nil {
		return m, err
	}
	s.done[kind+key] = m
	return m, nil
}

// announce writes down who takes part. A search with another budget has others.
func (s *searcher) announce(ctx context.Context, list []Candidate, windows int) error {
	text, err := json.Marshal(field{windows, list})
	if err != nil {
		return err
	}
	records, err := s.study.Records(ctx, fieldKind)
	if err != nil || len(records) == 1 && records[0].Value == string(text) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.study.Remove(ctx, fieldKind, ""); err != nil {
		return err
	}
	return s.study.Add(ctx, fieldKind, search.Record{Value: string(text)})
}

// chosen returns the candidates of stage 2: those that always take part, and the Top
// best rated without duplicates.
func (s *searcher) chosen() []Candidate {
	list := slices.Clone(s.fixed)
	sorted := slices.Clone(s.rated)
	sortCandidates(sorted)
	for _, c := range sorted {
		again := func(d Candidate) bool { return c.Duplicates(d.Coefficients) }
		if len(list) < len(s.fixed)+s.opt.Top && !slices.ContainsFunc(list, again) {
			list = append(list, c)
		}
	}
	return list
}

// verify is stage 2. All are screened; the best of them is pruned in full, then those
// with a chance are screened further or pruned in full. What is done next depends on
// what was measured in this order alone, so that an interrupted search goes on as if it
// had not been.
func (s *searcher) verify(ctx context.Context) (*Result, error) {
	list := s.chosen()
	if err := s.announce(ctx, list, len(s.v.windows)); err != nil {
		return nil, err
	}
	r := &race{windows: len(s.v.windows), entrants: make([]entrant, len(list))}
	res := &Result{Trials: len(s.rated), Objective: s.objective, Check: s.check}
	show := func() {
		describe(list, r)
		s.show(2, slices.DeleteFunc(slices.Clone(list), func(c Candidate) bool { return c.Perplexity == 0 && c.Screened == nil }))
	}
	full := func(i int) error {
		if err := s.measure(ctx, &r.entrants[i], list[i].Coefficients); err != nil {
			return fmt.Errorf("%s: %w", list[i], err)
		}
		show()
		return nil
	}
	screen := func(i, windows int) error {
		if err := s.screen(ctx, &r.entrants[i], list[i].Coefficients, windows); err != nil {
			return fmt.Errorf("%s: %w", list[i], err)
		}
		show()
		return nil
	}
	for i := range list {
		if s.objective == Full { // nearly all have been
			if err := full(i); err != nil {
				return nil, err
			}
		} else if err := screen(i, r.firstLook()); err != nil {
			return nil, err
		}
	}
	dense, err := s.once(ctx, denseKind, "", 1, func() (measurement, error) {
		nll, err := s.v.unpruned(ctx)
		return measurement{NLL: []float64{nll}}, err
	})
	if err != nil {
		return nil, err
	}
	res.Dense = eval.Number(math.Exp(dense.NLL[0]))
	if s.objective != Full {
		i := r.lowest()
		if err := screen(i, r.windows); err != nil {
			return nil, err
		}
		r.expect(i, dense.NLL[0])
		if err := full(i); err != nil {
			return nil, err
		}
		for i = r.next(); i >= 0; i = r.next() {
			further := full
			if len(r.entrants[i].screened) < r.windows {
				further = func(i int) error { return screen(i, r.windows) }
			}
			if err := further(i); err != nil {
				return nil, err
			}
		}
	}
	for i, e := range r.entrants {
		list[i].GivenUp = e.full == nil
	}
	res.Best, res.Verified = list[r.best()], list
	sortCandidates(res.Verified)
	return res, nil
}

// describe says in list what is known of r's entrants.
func describe(list []Candidate, r *race) {
	chances := r.chances()
	for i, e := range r.entrants {
		if e.full != nil {
			list[i].Perplexity, list[i].Blocks = eval.Number(math.Exp(mean(e.full))), e.blocks
		}
		if len(e.screened) > 0 {
			list[i].Screened = &Screening{Windows: len(e.screened), Perplexity: eval.Number(math.Exp(mean(e.screened)))}
			if chances != nil {
				list[i].Screened.Chance = chances[i]
			}
		}
	}
}

// measure measures e, which is c, in full.
func (s *searcher) measure(ctx context.Context, e *entrant, c Coefficients) error {
	m, err := s.once(ctx, fullKind, c.Key(), len(s.v.windows), func() (measurement, error) {
		return s.v.measure(ctx, fmt.Sprintf("prune by %s", c.Normalized()), s.opt.RecipeOf(c))
	})
	e.full, e.blocks = m.NLL, m.Blocks
	return err
}

// screen screens e, which is c, on the first windows that it has not been. The objective
// Perplexity has looked at a few of them.
func (s *searcher) screen(ctx context.Context, e *entrant, c Coefficients, windows int) error {
	to := []int{windows}
	if s.objective == Perplexity && windows > s.few() {
		to = []int{s.few(), windows}
	}
	for _, hi := range to {
		lo := len(e.screened)
		if lo >= hi {
			continue
		}
		m, err := s.once(ctx, screenKind, screenKey(c, lo), hi-lo, func() (measurement, error) {
			nll, err := s.v.try(ctx, fmt.Sprintf("try %s", c.Normalized()), s.opt.RecipeOf(c), lo, hi)
			return measurement{NLL: nll}, err
		})
		if err != nil {
			return err
		}
		e.screened = append(e.screened, m.NLL...)
	}
	return nil
}

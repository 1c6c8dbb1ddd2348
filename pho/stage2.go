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
// JSON, of a screening with the window that it begins at.
const (
	fullKind   = "full"
	screenKind = "screening"
)

type measurement struct {
	NLL []float64 `json:"nll"` // by window, nats per token
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
	for _, kind := range []string{fullKind, screenKind} {
		records, err := s.study.Records(ctx, kind)
		if err != nil {
			return err
		}
		for _, r := range records {
			var m measurement
			if err := json.Unmarshal([]byte(r.Value), &m); err != nil {
				return fmt.Errorf("%s of %s: %w", kind, r.Key, err)
			}
			s.done[kind+r.Key] = m.NLL
		}
	}
	return nil
}

// once returns what an earlier run has measured of so many windows, or measures and
// keeps it.
func (s *searcher) once(ctx context.Context, kind, key string, windows int, measure func() ([]float64, error)) ([]float64, error) {
	if nll, ok := s.done[kind+key]; ok {
		if err := checkNLL(nll, windows); err != nil {
			return nil, fmt.Errorf("%s of %s: %w", kind, key, err)
		}
		return nll, nil
	}
	nll, err := measure()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(measurement{nll})
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // what is finished is kept, also after an interrupt
	if err := s.study.Add(ctx, kind, search.Record{Key: key, Value: string(text)}); err != nil {
		return nil, err
	}
	s.done[kind+key] = nll
	return nll, nil
}

// chosen returns the candidates of stage 2: RIA, equal coefficients, and the
// Top best rated without duplicates.
func (s *searcher) chosen() []Candidate {
	list := slices.Clone(s.fixed)
	sorted := slices.Clone(s.rated)
	sortCandidates(sorted)
	for _, c := range sorted {
		again := func(d Candidate) bool {
			if s.opt.Sampler == ClimbSampler { // all are verified: nothing is saved
				return c.Coefficients == d.Coefficients
			}
			return c.Duplicates(d.Coefficients)
		}
		if len(list) < len(s.fixed)+s.opt.Top && !slices.ContainsFunc(list, again) {
			list = append(list, c)
		}
	}
	return list
}

// verify is stage 2. RIA is measured in full, to say what was won against it, and
// the others are screened by what it saw; those with a chance are measured further.
// What is done next depends on what was measured in this order alone, so that an
// interrupted search goes on as if it had not been.
func (s *searcher) verify(ctx context.Context) (*Result, error) {
	list := s.chosen()
	r := &race{windows: len(s.v.windows), entrants: make([]entrant, len(list))}
	res := &Result{Trials: len(s.rated)}
	further := func(i, windows int) error {
		e, c := &r.entrants[i], list[i].Coefficients
		if len(e.screened) < windows {
			if err := s.screen(ctx, e, c, windows); err != nil {
				return fmt.Errorf("%s: %w", c, err)
			}
		} else {
			if err := s.measure(ctx, e, c); err != nil {
				return fmt.Errorf("%s: %w", c, err)
			}
		}
		describe(list, r)
		s.show(2, slices.DeleteFunc(slices.Clone(list), func(c Candidate) bool { return c.Perplexity == 0 && c.Screened == nil }))
		return nil
	}
	if err := further(0, 0); err != nil {
		return nil, err
	}
	first := r.firstLook()
	if s.opt.Sampler == ClimbSampler {
		first = 0 // nearly all have been measured in full
	}
	for i := 1; i < len(list); i++ {
		if err := further(i, first); err != nil {
			return nil, err
		}
	}
	for i := r.next(); i >= 0; i = r.next() {
		if err := further(i, r.windows); err != nil {
			return nil, err
		}
	}
	for i, e := range r.entrants {
		list[i].GivenUp = e.full == nil
	}
	res.Best, res.RIA, res.Verified = list[r.best()], list[0], list
	sortCandidates(res.Verified)
	return res, nil
}

// describe says in list what is known of r's entrants.
func describe(list []Candidate, r *race) {
	chances := r.chances()
	for i, e := range r.entrants {
		if e.full != nil {
			list[i].Perplexity = eval.Number(math.Exp(mean(e.full)))
		}
		if len(e.screened) > 0 {
			list[i].Screened = &Screening{Windows: len(e.screened), Perplexity: eval.Number(math.Exp(mean(e.screened)))}
			if chances != nil {
				list[i].Screened.Chance = chances[i]
			}
		}
	}
}

// measure measures e, which is c, in full. RIA becomes what others are screened by.
func (s *searcher) measure(ctx context.Context, e *entrant, c Coefficients) (err error) {
	e.full, err = s.once(ctx, fullKind, key(c), len(s.v.windows), func() ([]float64, error) {
		measure := s.v.measure
		if c == s.fixed[0].Coefficients {
			measure = s.v.measureReference
		}
		return measure(ctx, fmt.Sprintf("prune by %s", c.Normalized()), s.opt.RecipeOf(c))
	})
	return err
}

// screen screens e, which is c, on the first windows that it has not been.
func (s *searcher) screen(ctx context.Context, e *entrant, c Coefficients, windows int) error {
	lo := len(e.screened)
	nll, err := s.once(ctx, screenKind, fmt.Sprintf("%s from %d", key(c), lo), windows-lo, func() ([]float64, error) {
		if s.v.ref == nil { // an earlier run has measured it
			ria := s.fixed[0].Coefficients
			if err := s.v.calibrate(ctx, fmt.Sprintf("prune by %s again", ria.Normalized()), s.opt.RecipeOf(ria)); err != nil {
				return nil, err
			}
		}
		return s.v.screen(ctx, fmt.Sprintf("screen %s", c.Normalized()), s.opt.RecipeOf(c), lo, windows)
	})
	e.screened = append(e.screened, nll...)
	return err
}

// key is a candidate as JSON.
func key(c Coefficients) string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("pho: candidate %v has no JSON: %v", c, err))
	}
	return string(text)
}

package pho

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
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

	By provenance.Record `json:"by,omitempty"` // who measured; in a study of this program's own it is known
}

// field is who takes part in stage 2, and on how many windows.
type field struct {
	Windows    int         `json:"windows"`
	Candidates []Candidate `json:"candidates"`
}

// job is one measurement of a candidate.
type job struct {
	kind   string
	c      Coefficients
	lo, hi int // windows
}

func (s *searcher) fullJob(c Coefficients) job { return job{fullKind, c, 0, len(s.v.windows)} }

var denseJob = job{kind: denseKind, hi: 1}

// key is that of j's record within its kind.
func (j job) key() string {
	switch j.kind {
	case denseKind:
		return ""
	case screenKind:
		return screenKey(j.c, j.lo)
	}
	return j.c.Key()
}

func (j job) String() string {
	switch j.kind {
	case denseKind:
		return "dense"
	case screenKind:
		return fmt.Sprintf("try %s on %d windows", j.c.Normalized(), j.hi-j.lo)
	}
	return fmt.Sprintf("prune by %s", j.c.Normalized())
}

// do measures.
func (v *verifier) do(ctx context.Context, j job, rec recipe.Recipe) (m measurement, err error) {
	switch j.kind {
	case denseKind:
		nll, err := v.unpruned(ctx)
		return measurement{NLL: []float64{nll}}, err
	case screenKind:
		m.NLL, err = v.try(ctx, fmt.Sprintf("try %s", j.c.Normalized()), rec, j.lo, j.hi)
		return m, err
	}
	return v.measure(ctx, fmt.Sprintf("prune by %s", j.c.Normalized()), rec)
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
			if m.By != nil {
				s.by[m.By.By()]++
			}
		}
	}
	return nil
}

// once returns what an earlier run has measured, or measures and keeps it.
func (s *searcher) once(ctx context.Context, j job) (measurement, error) {
	m, ok := s.done[j.kind+j.key()]
	var err error
	switch {
	case ok:
	case s.desk != nil:
		m, err = s.ask(ctx, j)
	default:
		if m, err = s.measured(ctx, j); err == nil {
			s.done[j.kind+j.key()] = m
		}
		return m, err
	}
	if err != nil {
		return m, err
	}
	if err := checkNLL(m.NLL, j.hi-j.lo); err != nil {
		return m, fmt.Errorf("%s of %s: %w", j.kind, j.key(), err)
	}
	s.done[j.kind+j.key()] = m
	return m, nil
}

// measured measures and keeps it.
func (s *searcher) measured(ctx context.Context, j job) (measurement, error) {
	m, err := s.v.do(ctx, j, s.opt.RecipeOf(j.c))
	if err != nil {
		return m, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	ctx = context.WithoutCancel(ctx) // what is finished is kept, also after an interrupt
	return m, s.study.Add(ctx, j.kind, search.Record{Key: j.key(), Value: string(text)})
}

// ask has others measure.
func (s *searcher) ask(ctx context.Context, j job) (m measurement, err error) {
	o, err := s.order(j)
	if err != nil {
		return m, err
	}
	value, err := s.desk.ask(ctx, o)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal([]byte(value), &m); err != nil {
		return m, fmt.Errorf("%s of %s: %w", j.kind, j.key(), err)
	}
	s.by[m.By.By()]++
	return m, nil
}

func (s *searcher) order(j job) (search.Order, error) {
	return s.desk.order(j.kind, j.key(), j.String(), Work{Candidate: j.c, Lo: j.lo, Hi: j.hi})
}

// orders are for those of jobs that are not done.
func (s *searcher) orders(jobs []job) ([]search.Order, error) {
	var out []search.Order
	for _, j := range jobs {
		if _, ok := s.done[j.kind+j.key()]; ok {
			continue
		}
		o, err := s.order(j)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// ahead has others begin with what will be asked for.
func (s *searcher) ahead(ctx context.Context, jobs ...job) error {
	if s.desk == nil {
		return nil
	}
	orders, err := s.orders(jobs)
	if err != nil || len(orders) == 0 {
		return err
	}
	return s.desk.q.Order(ctx, orders...)
}

// How many candidates are guessed beyond the one that is asked for, and up to how many
// trials: each guess asks a sampler again for all there were.
const (
	guesses   = 16
	mostGuess = 1000
)

// guess orders what the sampler, which asks for x after trials, is likely to ask next:
// what it would if x and what follows were no better than the worst so far. Who has
// nothing else to do measures it. The sampler is told in its own order all the same, so
// that a search is the same whoever measures; a wrong guess is work for nothing.
func (s *searcher) guess(ctx context.Context, trials []search.Trial, x []float64) error {
	if s.desk == nil || len(trials) > mostGuess {
		return nil
	}
	twin, err := search.New(s.opt.Sampler, search.Options{Seed: s.opt.Seed, Start: s.space.start()})
	if err != nil {
		return err
	}
	if err := search.Replay(twin, trials); err != nil {
		return err
	}
	worst := 0.0
	for _, t := range trials {
		worst = max(worst, t.Value)
	}
	points, err := search.Ahead(twin, min(1+guesses, s.opt.Trials-len(trials)), worst)
	if err != nil {
		return err
	}
	var jobs []job
	for _, p := range points[1:] { // the first is x
		jobs = append(jobs, s.ratingJobs(s.space.at(p))...)
	}
	orders, err := s.orders(jobs)
	if err != nil {
		return err
	}
	for i := range orders {
		orders[i].Later = true
	}
	if err := s.ahead(ctx, s.ratingJobs(s.space.at(x))...); err != nil {
		return err
	}
	if len(orders) > 0 {
		if err := s.desk.q.Order(ctx, orders...); err != nil {
			return err
		}
	}
	return s.withdraw(ctx, orders)
}

// withdraw takes back all guesses but now.
func (s *searcher) withdraw(ctx context.Context, now []search.Order) error {
	var wrong []search.Order
	for _, o := range s.guessed {
		if !slices.ContainsFunc(now, func(n search.Order) bool { return n.Kind == o.Kind && n.Key == o.Key }) {
			wrong = append(wrong, o)
		}
	}
	if s.guessed = now; len(wrong) == 0 {
		return nil
	}
	return s.desk.q.Withdraw(ctx, wrong...)
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
	needed := []job{denseJob}
	for i := range list {
		if s.objective == Full {
			needed = append(needed, s.fullJob(list[i].Coefficients))
		} else {
			needed = append(needed, s.screenJobs(0, list[i].Coefficients, r.firstLook())...)
		}
	}
	if err := s.ahead(ctx, needed...); err != nil {
		return nil, err
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
	dense, err := s.once(ctx, denseJob)
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
	m, err := s.once(ctx, s.fullJob(c))
	e.full, e.blocks = m.NLL, m.Blocks
	return err
}

// screen screens e, which is c, on the first windows that it has not been.
func (s *searcher) screen(ctx context.Context, e *entrant, c Coefficients, windows int) error {
	for _, j := range s.screenJobs(len(e.screened), c, windows) {
		m, err := s.once(ctx, j)
		if err != nil {
			return err
		}
		e.screened = append(e.screened, m.NLL...)
	}
	return nil
}

// screenJobs are what screens c, which was on so many windows, on the first of them. The
// objective Perplexity has looked at a few of them.
func (s *searcher) screenJobs(was int, c Coefficients, windows int) []job {
	to := []int{windows}
	if s.objective == Perplexity && windows > s.few() {
		to = []int{s.few(), windows}
	}
	var jobs []job
	for _, hi := range to {
		if was < hi {
			jobs = append(jobs, job{screenKind, c, was, hi})
			was = hi
		}
	}
	return jobs
}

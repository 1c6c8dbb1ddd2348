package pho

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/search"
)

// The objectives that measure perplexity; the others are proxies.
const (
	// Perplexity is measured on Few windows of the model pruned by the norms that the
	// default leaves.
	Perplexity = "perplexity"

	// Full is measured on all windows of the model pruned in full: the paper's baseline,
	// with the sampler hillclimb.
	Full = "full"

	// GiniPruned is the paper's proxy.
	GiniPruned = "gini_pruned"
)

// Few is on how many windows Perplexity rates a candidate.
const Few = 4

// Objectives returns the names of what stage 1 rates candidates by, the default first.
func Objectives() []string { return append([]string{Perplexity, Full}, ProxyNames...) }

// checkObjective returns an error if no objective is called name.
func checkObjective(name string) error {
	if !slices.Contains(Objectives(), name) {
		return fmt.Errorf("unknown objective %q, want one of %s", name, strings.Join(Objectives(), ", "))
	}
	return nil
}

// measures reports whether an objective measures perplexity. One that does searches the
// wide family, and a proxy the paper's triangle: it compares scores of one Linear, which
// says nothing of the others, nor of another power.
func measures(objective string) bool { return objective == Perplexity || objective == Full }

// rating rates a candidate. Lower is better.
func (s *searcher) rating(ctx context.Context, c Coefficients) (Candidate, error) {
	rated := Candidate{Coefficients: c}
	var err error
	switch s.objective {
	case Perplexity:
		var e entrant
		err = s.screen(ctx, &e, c, s.few())
		rated.Rating = mean(e.screened)
	case Full:
		var e entrant
		err = s.measure(ctx, &e, c)
		rated.Rating = mean(e.full)
		rated.Perplexity = eval.Number(math.Exp(rated.Rating))
	default:
		rated.Rating, err = s.proxyOf(c, s.objective)
	}
	if err == nil {
		rated.Rating = min(rated.Rating, eval.MaxNLL)
	}
	return rated, err
}

// ratingJobs are the measurements that rating makes; none of a proxy's.
func (s *searcher) ratingJobs(c Coefficients) []job {
	switch s.objective {
	case Perplexity:
		return []job{{screenKind, c, 0, s.few()}}
	case Full:
		return []job{s.fullJob(c)}
	}
	return nil
}

// few is on how many windows the objective Perplexity looks.
func (s *searcher) few() int { return min(Few, len(s.v.windows)) }

// proxyOf returns a proxy of c at the first Linear.
func (s *searcher) proxyOf(c Coefficients, name string) (float64, error) {
	if name == GiniPruned {
		if s.proxy == nil {
			var err error
			if s.proxy, err = s.first.proxy(); err != nil {
				return 0, err
			}
		}
		return s.proxy.Gini(c)
	}
	if s.work == nil {
		s.work = make([]float32, s.first.l.Rows*s.first.l.Cols)
	}
	p, err := s.first.proxies(s.work, c)
	return p.List()[slices.Index(ProxyNames, name)], err
}

// ProxyCheck says how a proxy goes with perplexity on the model that is searched.
type ProxyCheck struct {
	Proxy        string `json:"proxy"`
	Candidates   int    `json:"candidates"`
	*Correlation        // nil: the proxy is the same for all
	Followed     bool   `json:"followed"`
}

// newProxyCheck says how values of a proxy go with nats per token.
func newProxyCheck(proxy string, values, nll []float64) *ProxyCheck {
	check := &ProxyCheck{Proxy: proxy, Candidates: len(nll)}
	if c, ok := Spearman(values, nll); ok {
		check.Correlation, check.Followed = &c, c.Rho >= leastRho
	}
	return check
}

// checkKind is that of the records, for readers of the study, of the values that the
// check saw: keys are numbers, values a Rated.
const checkKind = "check"

// keepCheck writes down what the check saw of candidate n.
func (s *searcher) keepCheck(ctx context.Context, n int, c Rated) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.study.Add(context.WithoutCancel(ctx), checkKind, search.Record{Key: strconv.Itoa(n), Value: string(text)})
}

// A proxy is held against the objective Perplexity on so many candidates that are drawn
// evenly, and followed if Spearman's ρ is at least leastRho: with 12, that happens to
// one in twenty that have nothing to do with perplexity.
const (
	checked  = 12
	leastRho = 0.5
)

// checkProxy measures how the objective, a proxy, goes with perplexity.
func (s *searcher) checkProxy(ctx context.Context) error {
	sampler, err := search.New("random", search.Options{Seed: s.opt.Seed, Start: s.space.start()})
	if err != nil {
		return err
	}
	known, err := s.study.Records(ctx, checkKind)
	if err != nil {
		return err
	}
	var points []Coefficients
	var needed []job
	for range checked {
		x, err := sampler.Ask()
		if err != nil {
			return err
		}
		points = append(points, s.space.at(x))
		needed = append(needed, job{screenKind, s.space.at(x), 0, s.few()})
	}
	if err := s.ahead(ctx, needed...); err != nil {
		return err
	}
	var proxies, nll []float64
	bar := s.opt.Progress.Start("check "+s.objective, checked, "candidates")
	for n, c := range points {
		v, err := s.proxyOf(c, s.objective)
		if err != nil {
			return err
		}
		var e entrant
		if err := s.screen(ctx, &e, c, s.few()); err != nil {
			return err
		}
		if n >= len(known) {
			if err := s.keepCheck(ctx, n, Rated{c, v, s.objective}); err != nil {
				return err
			}
		}
		proxies, nll = append(proxies, v), append(nll, mean(e.screened))
		bar.Add(1)
	}
	s.check = newProxyCheck(s.objective, proxies, nll)
	if !s.check.Followed && s.opt.Warn != nil {
		rho := "is the same for all of"
		if s.check.Correlation != nil {
			rho = fmt.Sprintf("has Spearman's ρ %+.2f with perplexity over", s.check.Rho)
		}
		s.opt.Warn("%s %s %d candidates on this model: it is not followed, %s is", s.objective, rho, checked, Perplexity)
	}
	return nil
}

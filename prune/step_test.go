package prune

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/update"
)

// resolve returns the steps of a recipe, and the plan that they are in.
func resolve(t *testing.T, r recipe.Recipe) *Plan {
	t.Helper()
	resolved, err := r.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	return &Plan{resolved: resolved, steps: stepsOf(resolved), engine: cpu.New(engine.F32), skip: map[string]bool{}}
}

// own makes updates fit to the Linears' own weights, all tokens alike.
func own(r recipe.Recipe) recipe.Recipe {
	return r.With("fit_to", fit.Own).With("fit_tokens", fit.Equal)
}

// Steps stand in the order of the work, and say what they read of an input.
func TestStepsOfRecipes(t *testing.T) {
	for spec, want := range map[string]struct {
		steps           int
		attention, rest stats.Needs
	}{
		"magnitude":               {3, stats.Needs{}, stats.Needs{}}, // score, select, apply
		"wanda+lsa":               {4, stats.Needs{}, stats.Needs{}},
		"wanda+dsnot":             {4, stats.Needs{Moments: true}, stats.Needs{}}, // the attention alone
		"ria+lsa+swaps+sparsegpt": {5, stats.Needs{Gram: true}, stats.Needs{Gram: true}},
		"wanda+dsnot+admm":        {4, stats.Needs{Moments: true, Gram: true}, stats.Needs{Gram: true}},
		"sparsegpt":               {1, stats.Needs{Gram: true}, stats.Needs{Gram: true}},
		"sparsegpt+cp":            {3, stats.Needs{Gram: true}, stats.Needs{Gram: true}}, // score by RIA, order, update
	} {
		if updates := strings.Contains(spec, "sparsegpt") || strings.Contains(spec, "admm"); updates {
			dense, err := recipe.Recipe{Pattern: "2:4"}.WithMethod(spec)
			if err != nil {
				t.Fatal(err)
			}
			p := resolve(t, dense.With("fit_to", fit.Dense)) // before refinement and update
			if len(p.steps) != want.steps+1 || p.needsAt(false) != want.rest {
				t.Errorf("%s: %d steps that need %+v, fitted to the dense model", spec, len(p.steps), p.needsAt(false))
			}
			for _, s := range withoutData(p.resolved) {
				if s.needs != (stats.Needs{}) || s.share != nil {
					t.Errorf("%s: a step for experts without data needs %+v", spec, s.needs)
				}
			}
		}
		r, err := recipe.Recipe{Pattern: "2:4"}.WithMethod(spec)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(spec, "sparsegpt") || strings.Contains(spec, "admm") {
			r = own(r)
		}
		p := resolve(t, r)
		if len(p.steps) != want.steps || p.needsAt(true) != want.attention || p.needsAt(false) != want.rest {
			t.Errorf("%s: %d steps that need %+v of the attention's inputs and %+v of others, want %+v", spec, len(p.steps), p.needsAt(true), p.needsAt(false), want)
		}
		for _, s := range withoutData(p.resolved) {
			if s.needs != (stats.Needs{}) || s.share != nil {
				t.Errorf("%s: a step for experts without data needs %+v", spec, s.needs)
			}
		}
	}
}

// What is planned for Gram matrices is the sum of the steps' costs, by hand, for a
// block in which two Linears share an input of 64 columns and one has its own of 32.
func TestGramBytesByHand(t *testing.T) {
	block := []model.LinearSpec{
		{Name: "q", Rows: 96, Cols: 64, Attention: true, Input: 0, Share: 1},
		{Name: "k", Rows: 48, Cols: 64, Attention: true, Input: 0, Share: 1},
		{Name: "o", Rows: 64, Cols: 32, Attention: true, Input: 1, Share: 1},
	}
	h, h2 := stats.GramBytes(64), stats.GramBytes(32)
	swaps := func(n int) int64 { return refine.GramBytes(n) + refine.SwapsBytes(n) }
	factor := update.FactorBytes(64)
	for spec, want := range map[string]int64{
		"wanda":                 0,
		"wanda+dsnot":           0,
		"wanda+swaps":           h2 + h + swaps(64),
		"wanda+sparsegpt":       h2 + max(h+factor, factor+update.SparseGPT.RunBytes(96, 64, false)),
		"wanda+swaps+sparsegpt": h2 + max(h+swaps(64)+factor, swaps(64)+factor+update.SparseGPT.RunBytes(96, 64, false)),
		"sparsegpt+cp":          h2 + h + max(h+factor, factor+update.SparseGPT.RunBytes(96, 64, true)),
	} {
		r, err := recipe.Recipe{Pattern: "2:4"}.WithMethod(spec)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(spec, "sparsegpt") {
			r = own(r)
		}
		p := resolve(t, r)
		scratch := int64(0)
		if p.needsAt(true).Gram {
			scratch = h + h2 + p.engine.StatsScratch(64, stats.Needs{Gram: true})
		}
		if got := p.gramBytes(p.inputs(block)); got != max(want, scratch) {
			t.Errorf("%s: %d bytes, want %d", spec, got, max(want, scratch))
		}
		p.skip["q"], p.skip["k"], p.skip["o"] = true, true, true
		if got := p.gramBytes(p.inputs(block)); got != 0 {
			t.Errorf("%s: %d bytes where nothing is pruned", spec, got)
		}
	}
}

// Fitted in order, the statistics of one input are there at a time: the Gram matrix,
// and the Cross, with what gathering takes or what is made of them.
func TestFitBytesByHand(t *testing.T) {
	block := []model.LinearSpec{
		{Name: "q", Rows: 96, Cols: 64, Attention: true, Input: 0, Share: 1},
		{Name: "o", Rows: 64, Cols: 32, Attention: true, Output: true, Input: 1, Share: 1},
	}
	p := resolve(t, recipe.Recipe{Method: "sparsegpt", Pattern: "2:4"}.With("fit_to", fit.Dense))
	held, making := fit.Bytes(96, 64)
	gram := stats.GramBytes(64)
	factor, run := update.FactorBytes(64), update.SparseGPT.RunBytes(96, 64, true)
	most := max(gram+making, gram+held+factor, held+factor+run, gram+p.engine.StatsScratch(64, stats.Needs{Gram: true}))
	cross := stats.CrossBytes(96, 64) + p.engine.StatsScratch(64, stats.Needs{Cross: 96})
	if got, want := p.statsBytes(p.inputs(block)), most+cross; got < most || got > want {
		t.Errorf("%d bytes, want at least %d and at most %d", got, most, want)
	}
	alike := resolve(t, own(recipe.Recipe{Method: "sparsegpt", Pattern: "2:4"}))
	if got, want := alike.statsBytes(alike.inputs(block)), alike.gramBytes(alike.inputs(block)); got != want {
		t.Errorf("%d bytes where Linears are not fitted in order, want %d", got, want)
	}
}

// An input lets go of its Gram matrix, and of what was made of it, with the last
// matrix that reads them.
func TestInputReleases(t *testing.T) {
	made := 0
	shares := step{needs: stats.Needs{Gram: true}, share: func(in *input) (any, error) {
		if in.Gram == nil {
			return nil, errors.New("the Gram matrix is gone")
		}
		made++
		return made, nil
	}}
	reads := step{needs: stats.Needs{Gram: true}}
	plain := step{run: func(context.Context, *job) error { return nil }}
	for name, c := range map[string]struct {
		steps []step
		left  []int
		work  []int  // steps that work, one after the other
		held  string // after each: G the Gram matrix, S something that is shared
	}{
		"one step":                     {[]step{plain, shares}, []int{2, 2}, []int{0, 1, 0, 1}, "G,S,S,"},
		"two steps, one matrix":        {[]step{shares, shares}, []int{1, 1}, []int{0, 1}, "G,"},
		"two steps, two matrices":      {[]step{shares, shares}, []int{2, 2}, []int{0, 1, 0, 1}, "GS,SS,S,"},
		"one that reads the matrix":    {[]step{reads}, []int{2}, []int{0, 0}, "G,"},
		"shared, then read":            {[]step{shares, reads}, []int{1, 1}, []int{0, 1}, "G,"},
		"a matrix that the first omit": {[]step{shares, shares}, []int{1, 2}, []int{0, 1, 1}, "G,S,"},
	} {
		in := &input{Input: &stats.Input{Gram: &stats.Gram{N: 2}}, steps: c.steps, left: slices.Clone(c.left), shared: make([]any, len(c.steps))}
		var held []string
		for _, i := range c.work {
			if _, err := in.shareOf(i); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			in.done(i)
			now := ""
			if in.Gram != nil {
				now = "G"
			}
			for _, s := range in.shared {
				if s != nil {
					now += "S"
				}
			}
			held = append(held, now)
		}
		if got := strings.Join(held, ","); got != c.held {
			t.Errorf("%s: holds %s, want %s", name, got, c.held)
		}
	}
}

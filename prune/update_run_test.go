package prune_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/windows"
)

// updates are the ways to use package update: by themselves, and after a mask.
var updates = map[string]recipe.Recipe{
	"sparsegpt":       {Method: "sparsegpt"},
	"crepe+sparsegpt": {Method: "crepe", Update: "sparsegpt"},
	"admm":            {Method: "admm"},
	"crepe+admm":      {Method: "crepe", Update: "admm"},
}

// own makes updates fit to the Linears' own weights, all tokens alike.
func own(r recipe.Recipe) recipe.Recipe {
	return r.With("fit_to", fit.Own).With("fit_tokens", fit.Equal)
}

// dense makes updates fit to the dense model, tokens by their energy.
func dense(r recipe.Recipe) recipe.Recipe {
	return r.With("fit_to", fit.Dense).With("fit_tokens", fit.Energy)
}

// The order of the demo's perplexities at 70 % on the goldens' text: every
// update must be worth more than its mask alone, and admm more than sparsegpt,
// by more than chance.
func TestUpdatesLowerPerplexity(t *testing.T) {
	read := func(name string) *windows.Set {
		tokens := rows(golden.Read(t, filepath.Join(goldenDir, name))["input_ids"])
		return &windows.Set{Source: name, Tokens: tokens, SeqLen: len(tokens[0])}
	}
	calibration, evaluation := read("calibration.safetensors"), read("evaluation.safetensors")
	evaluation.Tokens = evaluation.Tokens[:6]
	perplexity := func(r recipe.Recipe) float64 {
		r.Sparsity = "70%"
		inv, m := openDemo(t)
		rep, err := prune.Run(t.Context(), inv, m, prune.Options{
			Recipe: r, Output: filepath.Join(t.TempDir(), "out"), Calibration: calibration, Evaluation: evaluation,
		})
		if err != nil {
			t.Fatal(err)
		}
		return float64(rep.Pruned.Perplexity)
	}
	crepe := perplexity(recipe.Recipe{Method: "crepe"})
	alone := perplexity(own(recipe.Recipe{Method: "sparsegpt"}))
	if fitted := perplexity(dense(recipe.Recipe{Method: "sparsegpt"})); !(fitted < 0.995*alone) { // 0.985; on 128 sequences 0.93
		t.Errorf("sparsegpt: perplexity %v fitted to the dense model, %v to the Linears' own weights", fitted, alone)
	}
	sparsegpt, admm := perplexity(updates["crepe+sparsegpt"]), perplexity(updates["crepe+admm"])
	if !(sparsegpt < 0.95*crepe && admm < 0.97*sparsegpt) {
		t.Errorf("perplexity %v by crepe, %v with sparsegpt, %v with admm", crepe, sparsegpt, admm)
	}
}

// An update stopped in the middle of a block, and again in a later one, ends
// with the bytes of a run that was not.
func TestUpdatesResume(t *testing.T) {
	for _, name := range []string{"crepe+sparsegpt", "admm"} { // the two share all of the driver's work
		t.Run(name, func(t *testing.T) {
			r := dense(updates[name])
			r.Pattern = "2:4"
			const fixture = "llama3-gqa"
			opt := fixtureOptions(t, fixture, r)
			opt.Evaluation = nil
			checkResume(t, name, opt, [2]int{3, 3}, func(ctx context.Context, opt prune.Options) error {
				_, err := runFixture(t, ctx, fixture, opt)
				return err
			})
		})
	}
}

// checkResume runs opt as a whole, then to another output, where it is interrupted after
// one of so many parts of its progress, twice, and compares the bytes.
func checkResume(t *testing.T, name string, opt prune.Options, parts [2]int, run func(ctx context.Context, opt prune.Options) error) {
	t.Helper()
	points := 0
	opt.Progress = func(progress.Update) { points++ }
	if err := run(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)
	opt.Output, opt.Resume = filepath.Join(t.TempDir(), "again"), true
	cuts := 0
	for _, left := range []int{points / parts[0], points / parts[1], points} {
		ctx, cancel := context.WithCancel(t.Context())
		opt.Progress = func(progress.Update) {
			if left--; left == 0 {
				cancel()
			}
		}
		err := run(ctx, opt)
		cancel()
		if errors.Is(err, context.Canceled) {
			cuts++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if cuts < 2 {
		t.Fatalf("%d interruptions, want 2", cuts)
	}
	compare(t, name, content(t, opt.Output), want)
}

// Every architecture, fused matrices in parts: counts and pattern hold.
func TestUpdatesOnFixtures(t *testing.T) {
	for _, fixture := range classes(t) {
		t.Run(fixture, func(t *testing.T) {
			for _, name := range []string{"sparsegpt", "crepe+admm"} {
				r := dense(updates[name])
				r.Pattern, r.Fused = "2:4", "split"
				opt := fixtureOptions(t, fixture, r)
				opt.Evaluation = nil
				inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
				plan, err := prune.MakePlan(inv, m, opt)
				if err != nil {
					t.Fatal(err)
				}
				rep, err := prune.Run(t.Context(), inv, m, opt)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				pruned := map[string]int{}
				for _, l := range plan.Linears {
					if !l.Skip {
						pruned[l.Name] = l.Pruned
					}
				}
				for _, l := range rep.Linears {
					if l.Zeros != pruned[l.Name] {
						t.Errorf("%s: %s: %d zeros, want %d", name, l.Name, l.Zeros, pruned[l.Name])
					}
				}
				eachLinear(t, opt.Output, func(l *model.Linear) {
					if pruned[l.Name] == 0 {
						return
					}
					if err := mask.NonZero(weightOf(t, l)).Verify(pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}, mask.AtLeast); err != nil {
						t.Errorf("%s: %s: %v", name, l.Name, err)
					}
				})
			}
		})
	}
}

// Experts that fell back hold their dense weights where they are not zero.
func TestExpertsWithFewTokensAreNotUpdated(t *testing.T) {
	for name, r := range updates {
		opt := fixtureOptions(t, "mixtral", r)
		opt.Evaluation = nil
		opt.Calibration.Tokens = sparseTokens(opt.Calibration.Tokens, 5)
		opt.Calibration.SeqLen = len(opt.Calibration.Tokens[0])
		var warned []string
		opt.Warn = func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) }
		dir := filepath.Join(fixturesDir, "mixtral")
		inv, m := openModel(t, dir)
		if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
			t.Fatal(err)
		}
		dense := map[string][]float32{}
		values := func(l *model.Linear) []float32 {
			out := make([]float32, l.Rows*l.Cols)
			for i := range l.Rows {
				weightOf(t, l).Row(out[i*l.Cols:(i+1)*l.Cols], i)
			}
			return out
		}
		eachLinear(t, dir, func(l *model.Linear) { dense[l.Name] = values(l) })
		lacking, updated := 0, 0
		eachLinear(t, opt.Output, func(l *model.Linear) {
			changed := false
			for i, v := range values(l) {
				changed = changed || v != 0 && v != dense[l.Name][i]
			}
			fellBack := slices.ContainsFunc(warned, func(w string) bool { return strings.HasPrefix(w, expert(l.Name)+" saw ") })
			if fellBack && changed {
				t.Errorf("%s: %s fell back and was updated", name, l.Name)
			}
			if fellBack {
				lacking++
			} else if changed {
				updated++
			}
		})
		if lacking == 0 || updated == 0 {
			t.Errorf("%s: %d Linears of experts with too few tokens, %d updated, want some of both", name, lacking, updated)
		}
	}
}

// A budget that a score can meet but no Gram matrix is refused before any work.
func TestBudgetBelowTheGram(t *testing.T) {
	opt := options(t.TempDir())
	inv, m := openDemo(t)
	opt.Recipe = recipe.Recipe{Method: "crepe"}
	plan, err := prune.MakePlan(inv, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range updates {
		opt.Recipe, opt.Memory = r, 0
		with, err := prune.MakePlan(inv, m, opt)
		if err != nil {
			t.Fatal(err)
		}
		if with.Memory.Gram <= 0 {
			t.Fatalf("%s: no Gram matrix planned", name)
		}
		opt.Memory = plan.Memory.Total() - plan.Memory.Hidden - plan.Memory.Ahead + 1<<20
		_, err = prune.Run(t.Context(), inv, m, opt)
		if !errors.Is(err, prune.ErrMemory) || !strings.Contains(err.Error(), "Gram matrices") {
			t.Errorf("%s: %v, want ErrMemory that speaks of Gram matrices", name, err)
		}
	}
}

// Fewer tokens than columns are warned of, once.
func TestFewTokensAreWarnedOf(t *testing.T) {
	opt := options(t.TempDir())
	opt.Recipe, opt.Evaluation = updates["crepe+sparsegpt"], nil
	var warned bytes.Buffer
	opt.Warn = func(format string, args ...any) { fmt.Fprintf(&warned, format+"\n", args...) }
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(warned.String(), "fewer than the 688 columns"); n != 1 {
		t.Errorf("warned %d times: %q", n, warned.String())
	}
}

// Every Gram matrix of a block is gathered before the first is used, in memory
// that is large beside the demo's.
func TestPlannedGram(t *testing.T) {
	opt := options(t.TempDir())
	inv, m := openDemo(t)
	opt.Recipe = own(updates["crepe+sparsegpt"])
	plan, err := prune.MakePlan(inv, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	if want := 3*stats.GramBytes(256) + stats.GramBytes(688) + m.Engine().StatsScratch(688, stats.Needs{Gram: true}); plan.Memory.Gram != want {
		t.Errorf("%d bytes of Gram matrices, want %d", plan.Memory.Gram, want)
	}
	const tokens, blocks = 3 * 12, 6
	n, wide := 256., 688.
	grams := tokens * (3*n*n + wide*wide)     // q, k and v share one; gate and up another
	factors := (3*n*n*n + wide*wide*wide) / 3 // one for each
	sweeps := (2*n + 2*128 + 2*wide) * n * n  // q and o, k and v, gate and up
	sweeps += n * wide * wide                 // down
	if want := blocks * (grams + factors + sweeps); !(math.Abs(plan.FLOP32-want) <= 1e-9*want) {
		t.Errorf("%v operations, want %v", plan.FLOP32, want)
	}
}

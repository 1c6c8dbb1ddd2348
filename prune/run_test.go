package prune_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

// openDemo opens the demo model.
func openDemo(t *testing.T) (*checkpoint.Inventory, *model.Model) {
	t.Helper()
	dir, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	return inv, m
}

// tokens is n windows of made-up text for the demo: for the driver's work any ids will
// do. tokensBelow is one for a model of vocab tokens.
func tokens(n, seqLen int, step int32) *windows.Set { return tokensBelow(4096, n, seqLen, step) }

func tokensBelow(vocab int32, n, seqLen int, step int32) *windows.Set {
	s := &windows.Set{Source: "made up", SeqLen: seqLen}
	id := int32(1)
	for range n {
		w := make([]int32, seqLen)
		for t := range w {
			id = (id*31 + step) % vocab
			w[t] = id
		}
		s.Tokens = append(s.Tokens, w)
	}
	return s
}

func options(dir string) prune.Options {
	return prune.Options{
		Model: "demo", Output: filepath.Join(dir, "out"),
		Recipe:      recipe.Recipe{Method: "crepe", Calibration: recipe.Calibration{Source: "x"}, Eval: recipe.Eval{Source: "y"}},
		Calibration: tokens(3, 12, 7), Evaluation: tokens(2, 12, 11),
	}
}

func run(t *testing.T, ctx context.Context, opt prune.Options) (*prune.Report, error) {
	t.Helper()
	inv, m := openDemo(t)
	return prune.Run(ctx, inv, m, opt)
}

// content returns every file of an output folder.
func content(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = data
	}
	return files
}

func compare(t *testing.T, what string, got, want map[string][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d files, want %d", what, len(got), len(want))
	}
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Fatalf("%s: %s differs", what, name)
		}
	}
}

// compareMasked is compare for a run by masks that were made before: it has no scores, so
// what it measured has less in it.
func compareMasked(t *testing.T, what string, got, want map[string][]byte) {
	t.Helper()
	for _, files := range []map[string][]byte{got, want} {
		if files[checkpoint.MeasuresName] == nil {
			t.Errorf("%s: no %s", what, checkpoint.MeasuresName)
		}
		delete(files, checkpoint.MeasuresName)
	}
	compare(t, what, got, want)
}

// TestResumeEndsWithTheSameBytes interrupts a run at each point at which it
// reports progress, resumes it, and interrupts that as well.
func TestResumeEndsWithTheSameBytes(t *testing.T) {
	const fixture = "llama3-gqa"
	opt := fixtureOptions(t, fixture, recipe.Recipe{Method: "crepe"})
	points := 0
	opt.Progress = func(progress.Update) { points++ }
	if _, err := runFixture(t, t.Context(), fixture, opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)
	if points < 20 {
		t.Fatalf("%d progress reports, want some to interrupt at", points)
	}
	stride, cuts := 2, 0
	for first := 1; first <= points; first += stride {
		stop := first
		again := opt
		again.Output = filepath.Join(t.TempDir(), "out")
		again.Resume = true // the first time there is nothing to resume
		for tries := 1; ; tries++ {
			ctx, cancel := context.WithCancel(t.Context())
			left := stop
			again.Progress = func(progress.Update) {
				if left--; left == 0 {
					cancel()
				}
			}
			_, err := runFixture(t, ctx, fixture, again)
			cancel()
			if err == nil {
				break
			}
			cuts++
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("stopped at report %d: %v", stop, err)
			}
			if _, err := os.Stat(again.Output); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("stopped at report %d: the output folder is there (%v)", stop, err)
			}
			if tries == 3 {
				stop += points // let it end
			}
		}
		compare(t, "resumed", content(t, again.Output), want)
	}
	if cuts < points/stride {
		t.Fatalf("%d interruptions, want one at every %dth of %d reports", cuts, stride, points)
	}
}

func TestThreadsDoNotChangeTheBytes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var want map[string][]byte
	for _, threads := range []int{1, 2, 3, 7} {
		runtime.GOMAXPROCS(threads)
		opt := options(t.TempDir())
		if _, err := run(t, t.Context(), opt); err != nil {
			t.Fatal(err)
		}
		got := content(t, opt.Output)
		if want == nil {
			want = got
		}
		compare(t, "threads", got, want)
	}
}

func TestResumeRefusesAnotherRecipe(t *testing.T) {
	opt := options(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opt.Progress = func(u progress.Update) {
		if strings.HasPrefix(u.Phase, "block 3") {
			cancel()
		}
	}
	if _, err := run(t, ctx, opt); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it cancelled", err)
	}
	opt.Progress, opt.Resume = nil, true
	opt.Recipe.Method = "wanda"
	if _, err := run(t, t.Context(), opt); err == nil || !strings.Contains(err.Error(), "wanda") || !strings.Contains(err.Error(), "crepe") {
		t.Fatalf("got %v, want a refusal that shows both recipes", err)
	}
	opt.Resume = false
	if _, err := run(t, t.Context(), opt); !errors.Is(err, checkpoint.ErrPartial) {
		t.Fatalf("got %v, want %v", err, checkpoint.ErrPartial)
	}
	opt.Overwrite = true
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
}

// TestUnprunedTensorsAreCarriedOver compares the output with its input tensor
// by tensor: Linears differ by zeros only, everything else by nothing.
func TestUnprunedTensorsAreCarriedOver(t *testing.T) {
	opt := options(t.TempDir())
	opt.Recipe.Skip = `layers\.2\.`
	rep, err := run(t, t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	in, _ := openDemo(t)
	half := map[string]int{}
	for _, l := range rep.Linears {
		half[l.Name] = l.Rows * l.Cols / 2
	}
	checked := carriedOver(t, in, opt.Output, rep, half)
	if checked != 35 {
		t.Fatalf("%d pruned Linears, want 35 of 42", checked)
	}
}

func TestMemoryBudget(t *testing.T) {
	inv, m := openDemo(t)
	opt := options(t.TempDir())
	opt.Calibration = tokens(64, 512, 7)
	roomy, err := prune.MakePlan(inv, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	if roomy.Memory.Spill {
		t.Fatalf("hidden states of %d bytes in a file with a budget of %d", roomy.Memory.Hidden, roomy.Memory.Budget)
	}
	opt.Memory = roomy.Memory.Total()
	if same, err := prune.MakePlan(inv, m, opt); err != nil || same.Memory.Ahead != roomy.Memory.Block || same.Memory.Total() != opt.Memory {
		t.Fatalf("%+v, %v: want it as without a budget, with the next block read ahead", same.Memory, err)
	}
	opt.Memory--
	if alone, err := prune.MakePlan(inv, m, opt); err != nil || alone.Memory.Ahead != 0 || alone.Memory.Spill {
		t.Fatalf("%+v, %v: want one block in memory, and the hidden states", alone.Memory, err)
	}
	opt.Memory = roomy.Memory.Total() - roomy.Memory.Ahead - 1
	tight, err := prune.MakePlan(inv, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !tight.Memory.Spill || tight.Memory.Total() > opt.Memory {
		t.Fatalf("spill %v, %d bytes with a budget of %d", tight.Memory.Spill, tight.Memory.Total(), opt.Memory)
	}
	opt.Memory = 1 << 20
	if _, err := prune.MakePlan(inv, m, opt); !errors.Is(err, prune.ErrMemory) {
		t.Fatalf("got %v, want %v", err, prune.ErrMemory)
	}
}

// TestHiddenStatesInAFile prunes with a budget that they do not fit in.
func TestHiddenStatesInAFile(t *testing.T) {
	inv, m := openDemo(t)
	opt := options(t.TempDir())
	if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)
	opt.Output = filepath.Join(t.TempDir(), "spilt")
	plan, err := prune.MakePlan(inv, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	opt.Memory = plan.Memory.Total() - plan.Memory.Ahead - 1
	if plan, err = prune.MakePlan(inv, m, opt); err != nil || !plan.Memory.Spill {
		t.Fatalf("spill %v (%v), want true", plan.Memory.Spill, err)
	}
	if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
		t.Fatal(err)
	}
	compare(t, "with a file", content(t, opt.Output), want)
}

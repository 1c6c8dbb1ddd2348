package prune_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

// goldenAllocation is what tools/golden_allocate.py finds on the demo model.
type goldenAllocation struct {
	Method string
	Params struct {
		Center  string
		Epsilon *float64
	}
	Measures []float64
	Shares   map[string][]float64 // by sparsity; null: one is not in [0, 1)
}

// TestAllocationEqualsPyTorch: measures and shares of the demo model's blocks
// are PyTorch's. Activations are float32 in both and agree within 1e-5; an
// outlier more or less is 1/708608, the singular values are float64.
func TestAllocationEqualsPyTorch(t *testing.T) {
	text, err := os.ReadFile("../allocate/testdata/demo.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []goldenAllocation
	if err := json.Unmarshal(text, &all); err != nil || len(all) != 5 {
		t.Fatalf("%d allocations (%v), want 5", len(all), err)
	}
	tokens := rows(golden.Read(t, filepath.Join(goldenDir, "calibration.safetensors"))["input_ids"])
	calibration := &windows.Set{Source: "golden", Tokens: tokens, SeqLen: len(tokens[0])}
	for _, want := range all {
		rec := recipe.Recipe{Method: "magnitude", Sparsity: "50%", Allocate: want.Method}
		if want.Params.Center != "" {
			rec = rec.With("dlp_center", want.Params.Center)
		}
		if want.Params.Epsilon != nil {
			rec = rec.With("alphapruning_epsilon", *want.Params.Epsilon)
		}
		inv, m := openDemo(t)
		rep, err := prune.Run(t.Context(), inv, m, prune.Options{Recipe: rec, Output: filepath.Join(t.TempDir(), "out"), Calibration: calibration})
		if err != nil {
			t.Fatal(err)
		}
		checkTotal(t, rep)
		checkShares(t, m, rep)
		resolved, err := rec.Resolve()
		if err != nil {
			t.Fatal(err)
		}
		for b, got := range rep.Allocation.Blocks {
			if m := want.Measures[b]; !(math.Abs(got.Measure-m) <= 1e-5*m) {
				t.Errorf("%s: measure of block %d is %v, want %v", want.Method, b, got.Measure, m)
			}
		}
		for sparsity, shares := range want.Shares {
			target, err := pattern.ParseSparsity(sparsity)
			if err != nil {
				t.Fatal(err)
			}
			blocks := slices.Clone(rep.Allocation.Blocks)
			_, err = resolved.Allocate.Allocate(blocks, target, resolved.Params)
			if shares == nil {
				if err == nil || !strings.Contains(err.Error(), "block 0 would have 1.02") {
					t.Errorf("%s at %s: %v, want an error that names block 0", want.Method, sparsity, err)
				}
				continue
			}
			for b, share := range shares {
				if err != nil || !(math.Abs(blocks[b].Sparsity-share) <= 1e-5) {
					t.Errorf("%s at %s: block %d gets %v (%v), want %v", want.Method, sparsity, b, blocks[b].Sparsity, err, share)
				}
			}
		}
	}
}

// checkTotal holds all zeros to the sparsity that was asked for, within one
// weight a Linear.
func checkTotal(t *testing.T, rep *prune.Report) {
	t.Helper()
	zeros, total, n := 0, 0, 0
	for _, l := range rep.Linears {
		if !l.Skipped {
			zeros, total, n = zeros+l.Zeros, total+l.Rows*l.Cols, n+1
		}
	}
	if exact := rep.Sparsity.Target * float64(total); zeros == 0 || !(math.Abs(float64(zeros)-exact) <= float64(n)) {
		t.Errorf("%s: %d of %d weights are zero, want %v within %d", rep.Allocation.Method, zeros, total, exact, n)
	}
}

// TestFixturesAllocate prunes every fixture by two allocations in turn: fused, hybrid
// and sparse models among them. The total is exact, and what is not pruned
// is carried over.
func TestFixturesAllocate(t *testing.T) {
	methods := allocate.Methods()[1:]
	for f, name := range classes(t) {
		for i, m := range methods {
			if d := (f + i) % len(methods); d > 1 {
				continue
			}
			t.Run(name+"/"+m.Name, func(t *testing.T) {
				r := recipe.Recipe{Method: []string{"crepe", "wanda", "magnitude"}[i%3], Sparsity: "60%", Allocate: m.Name}
				opt := fixtureOptions(t, name, r)
				opt.Evaluation = nil
				inv, m := openModel(t, filepath.Join(fixturesDir, name))
				rep, err := prune.Run(t.Context(), inv, m, opt)
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]int{}
				for _, l := range rep.Linears {
					want[l.Name] = l.Zeros
				}
				checkTotal(t, rep)
				carriedOver(t, inv, rep.Output, rep, want)
				checkShares(t, m, rep)
				again, err := prune.ReadManifest(rep.Output)
				if err != nil || len(again.Allocation.Blocks) != m.Blocks() || again.Recipe.Allocate != rep.Allocation.Method {
					t.Errorf("the manifest has allocation %+v (%v)", again.Allocation, err)
				}
			})
		}
	}
}

// checkShares holds the zeros of each block to the share it was given.
func checkShares(t *testing.T, m *model.Model, rep *prune.Report) {
	t.Helper()
	zeros := map[string]prune.LinearReport{}
	for _, l := range rep.Linears {
		zeros[l.Name] = l
	}
	for b, share := range rep.Allocation.Blocks {
		for _, l := range m.Linears(b) {
			if got := zeros[l.Name]; !got.Skipped && !(math.Abs(float64(got.Zeros)-share.Sparsity*float64(l.Rows*l.Cols)) <= 1) {
				t.Errorf("%s: %d zeros, want %v of %d", l.Name, got.Zeros, share.Sparsity, l.Rows*l.Cols)
			}
		}
	}
}

// TestAllocationResumes interrupts a run with a dense pass at every fifth of
// its progress reports.
func TestAllocationResumes(t *testing.T) {
	const fixture = "llama3-gqa"
	for _, name := range []string{"dlp", "alphapruning"} {
		opt := fixtureOptions(t, fixture, recipe.Recipe{Method: "crepe", Allocate: name, Sparsity: "40%"})
		opt.Evaluation = nil
		points := interrupted(t, fixture, opt, 0)
		want := content(t, opt.Output)
		for stop := 1; stop < points; stop += 5 {
			opt.Output = filepath.Join(t.TempDir(), "out")
			interrupted(t, fixture, opt, stop)
			compare(t, name, content(t, opt.Output), want)
		}
	}
}

// TestInMemoryAllocates: masks alone prune to the weights that Run writes, also
// the second time, when the blocks have been measured.
func TestInMemoryAllocates(t *testing.T) {
	opt := options(t.TempDir())
	opt.Recipe.Allocate, opt.Recipe.Method = "owl", "wanda"
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	eachLinear(t, opt.Output, func(l *model.Linear) { want[l.Name] = bytes.Clone(weightOf(t, l).Bytes()) })
	_, m := openDemo(t)
	p := prune.NewInMemory(m, opt.Calibration)
	for range 2 {
		n := 0
		_, err := p.Prune(t.Context(), "prune", opt.Recipe, func(b *model.Block) error {
			for _, in := range b.Inputs() {
				for _, l := range in.Linears {
					n++
					if !slices.Equal(weightOf(t, l).Bytes(), want[l.Name]) {
						t.Errorf("%s differs", l.Name)
					}
				}
			}
			return nil
		})
		if err != nil || n != len(want) {
			t.Fatalf("%d Linears, want %d (%v)", n, len(want), err)
		}
	}
}

// interrupted prunes a fixture by opt, stopped at a progress report and resumed; 0
// prunes it at once and returns the number of reports.
func interrupted(t *testing.T, fixture string, opt prune.Options, stop int) (points int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opt.Progress = func(progress.Update) {
		if points++; points == stop {
			cancel()
		}
	}
	_, err := runFixture(t, ctx, fixture, opt)
	if errors.Is(err, context.Canceled) {
		opt.Progress, opt.Resume = nil, true
		_, err = runFixture(t, t.Context(), fixture, opt)
	}
	if err != nil {
		t.Fatalf("stopped at report %d: %v", stop, err)
	}
	return points
}

package prune_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
)

// What a run says of its predictions is what crepe eval --against measures of the
// finished folder, on the first windows.
func TestDivergedEqualsAgainst(t *testing.T) {
	opt := options(t.TempDir())
	opt.Evaluation = tokens(18, 12, 11)
	rep, err := run(t, t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := checkpoint.Open(opt.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	_, dense := openDemo(t)
	want, err := eval.Against(t.Context(), m, dense, opt.Evaluation.Tokens[:16], eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Diverged == nil || *rep.Diverged != want.Divergence {
		t.Errorf("a run says %+v, want %+v", rep.Diverged, want.Divergence)
	}
	if want.KL.Mean < 1e-3 {
		t.Errorf("KL %v: the two models are the same", want.KL.Mean)
	}
}

// What the dense model put out is computed again where its copy is damaged or gone.
func TestDenseOutputsAreComputedAgain(t *testing.T) {
	whole := options(t.TempDir())
	if _, err := run(t, t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	want := content(t, whole.Output)
	for name, harm := range map[string]func(path string) error{
		"damaged": func(path string) error {
			b, err := os.ReadFile(path)
			if err == nil {
				b[len(b)/2] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		},
		"gone": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			opt := options(t.TempDir())
			ctx, cancel := context.WithCancel(t.Context())
			opt.Progress = func(u progress.Update) {
				if strings.Contains(u.Phase, "prune") {
					cancel()
				}
			}
			if _, err := run(t, ctx, opt); err == nil {
				t.Fatal("the run was not interrupted")
			}
			var kept []string
			err := filepath.WalkDir(filepath.Dir(opt.Output), func(path string, d os.DirEntry, err error) error {
				if strings.HasSuffix(path, "dense-outputs") {
					kept = append(kept, path)
				}
				return err
			})
			if err != nil || len(kept) != 1 {
				t.Fatalf("copies of the dense model's outputs: %v, error %v, want one", kept, err)
			}
			if err := harm(kept[0]); err != nil {
				t.Fatal(err)
			}
			said := ""
			opt.Resume, opt.Progress = true, nil
			opt.Warn = func(format string, args ...any) { said += fmt.Sprintf(format, args...) + "\n" }
			if _, err := run(t, t.Context(), opt); err != nil {
				t.Fatal(err)
			}
			if damaged := strings.Contains(said, "damaged"); damaged != (name == "damaged") {
				t.Errorf("warnings %q", said)
			}
			compare(t, "resumed", content(t, opt.Output), want)
		})
	}
}

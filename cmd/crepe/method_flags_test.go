package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/update"
)

// toys registers a score, a refinement and an update with a parameter each, and
// returns what they read of it.
func toys(t *testing.T) (seen param.Values) {
	seen = param.Values{}
	t.Cleanup(score.Register(score.Method{
		Name: "toy", Doc: "|W|^exponent", Params: []param.Spec{{Name: "toy_exponent", Doc: "exponent of the size", Default: 1., Max: 2}},
		Score: func(dst []float32, w *tensor.Weight, s *stats.Input, p param.Values) error {
			seen["toy_exponent"] = p.Number("toy_exponent")
			return score.Magnitude.Score(dst, w, s, nil)
		},
	}))
	t.Cleanup(refine.Register(refine.Method{
		Name: "nothing", Doc: "leaves the mask", Params: []param.Spec{{Name: "nothing_rounds", Doc: "rounds of it", Default: 2, Min: 1}},
		Run: func(_ context.Context, p refine.Problem) (refine.Result, error) {
			seen["nothing_rounds"] = p.Params.Whole("nothing_rounds")
			return refine.Result{}, nil
		},
	}))
	none := func(int, bool) int64 { return 0 }
	t.Cleanup(update.Register(update.Method{
		Name: "keep", Doc: "keeps the weights", Params: []param.Spec{{Name: "keep_mode", Doc: "how", Default: "all", Choices: []any{"all", "most"}}},
		Prepare: func(_ *stats.Gram, _ pattern.Pattern, p param.Values) (update.Prepared, error) {
			seen["keep_mode"] = p.Text("keep_mode")
			return keeper{}, nil
		},
		Bytes: none, RunBytes: func(int, int, bool) int64 { return 0 },
		FLOP: func(int, bool) float64 { return 0 }, RunFLOP: func(int, int, bool) float64 { return 0 },
	}))
	return seen
}

type keeper struct{}

func (keeper) Damped() float64 { return 0 }

func (keeper) Run(_ context.Context, w *tensor.Weight, kept *mask.Mask, _ pattern.Target, _ []float32) error {
	kept.Apply(w)
	return nil
}

// A method that a package knows has, by its declaration alone, its flags with
// their help and completion, its keys in recipes, and errors of its bounds.
func TestParametersAreDeclaredOnce(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	seen := toys(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	say := func(want int, args ...string) string {
		t.Helper()
		var text bytes.Buffer
		if code := run(args, &text, &text); code != want {
			t.Fatalf("%v: exit code %d, want %d: %s", args, code, want, &text)
		}
		return text.String()
	}
	help := strings.Join(strings.Fields(say(0, "prune", "--help")), " ")
	for _, want := range []string{
		"toy |W|^exponent", "--toy-exponent float toy: exponent of the size, 0 to 2 (default 1)",
		"nothing leaves the mask", "--nothing-rounds int nothing: rounds of it, at least 1 (default 2)",
		"--keep-mode string keep: how, all or most (default all)",
	} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in help", want)
		}
	}
	if text := say(0, "__complete", "prune", "--keep-mode", ""); !strings.Contains(text, "most\n") {
		t.Errorf("--keep-mode is completed by %s", text)
	}
	toy := []string{"prune", "demo", "--method", "toy", "--samples", "1", "--seqlen", "16", "--eval", "none", "-o", out}
	for flags, want := range map[string]string{
		"--toy-exponent=3":                              "toy_exponent: 3, want 0 to 2",
		"--toy-exponent=x":                              `--toy-exponent: want a number`,
		"--refine=nothing --nothing-rounds=0":           "nothing_rounds: 0, want at least 1",
		"--update=keep --keep-mode=few":                 `keep_mode: "few", want all or most`,
		"--method=wanda --toy-exponent=1":               "toy_exponent: method wanda has no parameters",
		"--recipe=" + file(t, dir, "toy_exponent: 5"):   "toy_exponent: 5, want 0 to 2",
		"--recipe=" + file(t, dir, "nothing_rounds: 2"): "nothing_rounds: 2 without refinement: want refine nothing too",
	} {
		if text := say(exitCode(flags), append(toy, strings.Fields(flags)...)...); !strings.Contains(text, want) {
			t.Errorf("%s: %s, want %s", flags, text, want)
		}
	}
	say(0, append(toy, "--toy-exponent", "2", "--refine", "nothing", "--update", "keep", "--keep-mode", "most")...)
	if seen.Number("toy_exponent") != 2 || seen.Whole("nothing_rounds") != 2 || seen.Text("keep_mode") != "most" {
		t.Errorf("the methods read %v", seen)
	}
	manifest, err := prune.ReadManifest(out)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range seen {
		if manifest.Recipe.Params[name] != v {
			t.Errorf("the manifest has %s %v, want %v", name, manifest.Recipe.Params[name], v)
		}
	}
	clear(seen)
	say(0, "prune", "demo", "--recipe", prune.RecipePath(out), "-o", out+"2")
	if seen["toy_exponent"] != 2. || seen["keep_mode"] != "most" {
		t.Errorf("by the recipe the methods read %v", seen)
	}
}

// exitCode is that of flags that are wrong; of a recipe's text, of an error.
func exitCode(flags string) int {
	if strings.HasPrefix(flags, "--recipe") {
		return exitError
	}
	return exitUsage
}

// file writes a recipe with method toy and one line more.
func file(t *testing.T, dir, line string) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("version: 1\nmethod: toy\n" + line + "\n"); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

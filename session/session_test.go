package session_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/engine/reference"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
)

// The program in README.md builds and does what it says: as it stands if
// CREPE_TEST_GOLDENS is not empty, which takes a minute, else on few windows of its texts.
func TestREADME(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds a program and prunes the demo model with it")
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(string(text), "```go\n")
	program, _, closed := strings.Cut(program, "```")
	if !found || !closed {
		t.Fatal("README.md: no block of Go")
	}
	whole := os.Getenv("CREPE_TEST_GOLDENS") != ""
	if !whole {
		const asked = `Pattern: "2:4"`
		if !strings.Contains(program, asked) {
			t.Fatalf("README.md: no %s in the program", asked)
		}
		program = strings.Replace(program, asked, asked+", Calibration: recipe.Calibration{Samples: 8}, Eval: recipe.Eval{Windows: 8}", 1)
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "readme.exe")
	if err := os.WriteFile(source, []byte(program), 0o666); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", binary, source)
	build.Dir = ".." // whose module has the imports
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := exec.Command(binary)
	run.Dir = dir
	out, err := run.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, err.(*exec.ExitError).Stderr)
	}
	var linears int
	var pattern string
	var pruned, dense float64
	if _, err := fmt.Sscanf(string(out), "%d Linears at %s perplexity %f, dense %f", &linears, &pattern, &pruned, &dense); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if linears != 42 || pattern != "2:4:" || !(pruned > dense && pruned < 1.3*dense) {
		t.Errorf("%q, want 42 Linears at 2:4 and two perplexities", out)
	}
	// README's own table.
	if whole && (!(math.Abs(dense-85.61) <= 0.02) || !(math.Abs(pruned-100.94) <= 0.2)) {
		t.Errorf("%q, want perplexity 100.94, dense 85.61", out)
	}
	if _, err := prune.ReadManifest(filepath.Join(dir, "sparse")); err != nil {
		t.Error(err)
	}
}

// What a run needs is filled in, and what is given stays.
func TestPlan(t *testing.T) {
	var warned []string
	s, err := session.Open(t.Context(), session.Demo, session.Options{
		Compute: "f32", Warn: func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	opt := prune.Options{Recipe: recipe.Recipe{Method: "wanda", Sparsity: "60%"}, Output: filepath.Join(t.TempDir(), "out")}
	plan, err := s.Plan(&opt)
	if err != nil {
		t.Fatal(err)
	}
	r := opt.Recipe
	if r.Calibration.Source != "demo" || r.Eval.Source != "demo" || r.Eval.Windows != session.DemoWindows || r.Sparsity != "60%" || opt.Model != "demo" {
		t.Errorf("options %+v, want the demo's texts", opt)
	}
	if len(plan.Linears) != 42 || opt.Calibration != nil || opt.Evaluation != nil {
		t.Errorf("%d Linears planned, texts %v and %v; want 42 and no text read", len(plan.Linears), opt.Calibration, opt.Evaluation)
	}
	if err := os.MkdirAll(filepath.Join(opt.Output, "something"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Plan(&opt); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("error %v, want one of the output", err)
	}
}

// An evaluation text that nobody asked for may be missing; one that was asked for
// may not.
func TestTextsThatAreMissing(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	t.Setenv("HF_HOME", t.TempDir())
	var warned []string
	s, err := session.Open(t.Context(), session.Demo, session.Options{
		Warn: func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := recipe.Recipe{Method: "magnitude", Eval: recipe.Eval{Source: "wikitext2"}}.WithDefaults()
	opt := prune.Options{Recipe: r}
	err = s.LoadTexts(t.Context(), &opt, false)
	if text, ok := err.(*session.TextError); !ok || text.Key != "eval" {
		t.Errorf("error %v, want one of the text eval", err)
	}
	if err := s.LoadTexts(t.Context(), &opt, true); err != nil {
		t.Error(err)
	}
	all := strings.Join(warned, "\n")
	if opt.Evaluation != nil || opt.Recipe.Eval.Source != "none" || !strings.Contains(all, "perplexity is not measured") {
		t.Errorf("evaluation %v on %q, warnings %q; want none, and a warning that says so", opt.Evaluation, opt.Recipe.Eval.Source, all)
	}
}

// A session computes with the engine that it is given.
func TestEngine(t *testing.T) {
	s, err := session.Open(t.Context(), session.Demo, session.Options{Engine: reference.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if id := s.Model.Engine().ID(); !strings.HasPrefix(id, "reference") {
		t.Errorf("engine %s, want reference", id)
	}
	text := recipe.Eval{Source: "demo", SeqLen: 16, Windows: 2}
	want, err := s.Perplexity(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := session.Open(t.Context(), session.Demo, session.Options{Compute: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	got, c, err := cpu.Against(t.Context(), s, text)
	if err != nil {
		t.Fatal(err)
	}
	if !(math.Abs(float64(got.NLL-want.NLL)) <= 1e-4) || got.Windows != 2 {
		t.Errorf("%v, and with the reference %v", got, want)
	}
	if c.KL.Max != 0 || c.SameTop != 1 {
		t.Errorf("the model against itself: %+v", c)
	}
	if got := cpu.Model.Engine().Compute(); got != engine.F32 {
		t.Errorf("computes in %v, want f32", got)
	}
}

func TestOpenErrors(t *testing.T) {
	for name, want := range map[string]string{
		"https://huggingface.co/org/name/tree/main": `of a page's address, the id is "org/name"`,
		"nonesuch":  `model "nonesuch": no such folder or file, and not a hub id`,
		"./nowhere": `model "./nowhere": no such folder or file`,
	} {
		if _, err := session.Open(t.Context(), name, session.Options{}); err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%s: error %v, want %s", name, err, want)
		}
	}
	if _, err := session.Open(t.Context(), session.Demo, session.Options{Compute: "f64"}); err == nil || !strings.Contains(err.Error(), `"f64", want f32, bf16 or auto`) {
		t.Errorf("error %v, want one of the compute type", err)
	}
}

// What an engine with memory of its own has no room for is refused before a weight is read.
func TestDeviceMemory(t *testing.T) {
	device := &enginetest.Separate{Engine: cpu.New(engine.F32), Bytes: 1 << 40}
	s, err := session.Open(t.Context(), session.Demo, session.Options{Engine: device})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if m, half := s.Bounded(); half != 1<<39 || !m.Options().Ahead {
		t.Errorf("half is %d, options %+v: want half of the device's memory, and the next block read ahead", half, m.Options())
	}
	measure := func() error {
		_, err := s.Perplexity(t.Context(), recipe.Eval{Windows: 1, SeqLen: 8})
		return err
	}
	talk := func() error {
		m, err := s.Talk(batch.Options{})
		if err == nil {
			err = m.Runner.Close(t.Context())
		}
		return err
	}
	for name, work := range map[string]func() error{"eval": measure, "serve": talk} {
		device.Bytes = 1 << 40
		if err := work(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		device.Bytes = 1 << 20
		if err := work(); !errors.Is(err, prune.ErrMemory) || !strings.Contains(err.Error(), "demo: device memory budget too small: 1 MiB, want at least ") {
			t.Errorf("%s: %v, want an error about the device's memory", name, err)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/tokenizer"
)

const ggufData = "../../gguf/hf/testdata"

// ggufGolden is what tools/golden_gguf_models.py has transformers compute.
func ggufGolden(t *testing.T) map[string]struct{ NLL float64 } {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(ggufData, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string]struct{ NLL float64 }{}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	return golden
}

// crepe runs a command line and returns what it prints.
func crepe(t *testing.T, args ...string) string {
	t.Helper()
	var out, log bytes.Buffer
	if code := run(args, &out, &log); code != 0 {
		t.Fatalf("crepe %s: exit code %d\n%s", strings.Join(args, " "), code, &log)
	}
	return out.String()
}

// perplexity measures a model on the golden ids.
func perplexity(t *testing.T, model, ids string) float64 {
	t.Helper()
	var rep struct{ Perplexity float64 }
	if err := json.Unmarshal([]byte(crepe(t, "eval", model, "--data", ids, "--seqlen", "24", "--compute", "f32", "--json")), &rep); err != nil {
		t.Fatal(err)
	}
	return rep.Perplexity
}

// The perplexity of a GGUF file is that of transformers with its weights and
// the config that it was made from, scaled rotary embeddings included.
func TestGGUFPerplexity(t *testing.T) {
	for name, want := range ggufGolden(t) {
		t.Run(name, func(t *testing.T) {
			got := perplexity(t, filepath.Join(ggufData, name+".gguf"), filepath.Join(ggufData, name+".ids.safetensors"))
			// Sums of some hundred float32 products an output, three layers deep.
			if want := math.Exp(want.NLL); !(math.Abs(got-want) <= 1e-4*want) {
				t.Errorf("perplexity %.6f, transformers has %.6f", got, want)
			}
		})
	}
}

// A GGUF file is pruned to a Hugging Face folder: what is not pruned has the
// bits that the file is read as, and the tokenizer and its settings are there.
func TestGGUFPrune(t *testing.T) {
	for name := range ggufGolden(t) {
		t.Run(name, func(t *testing.T) {
			source, out := filepath.Join(ggufData, name+".gguf"), filepath.Join(t.TempDir(), "out")
			ids := filepath.Join(ggufData, name+".ids.safetensors")
			crepe(t, "prune", source, "-o", out, "--method", "wanda", "--calibration", ids, "--samples", "2", "--seqlen", "24",
				"--eval", "none", "--compute", "f32")
			crepe(t, "verify", out, source)
			was, err := hf.Open(source)
			if err != nil {
				t.Fatal(err)
			}
			defer was.Close()
			now, err := hf.OpenModel(out)
			if err != nil {
				t.Fatal(err)
			}
			defer now.Close()
			if !bytes.Equal(now.Config(), was.Config()) {
				t.Errorf("config.json is\n%s, want\n%s", now.Config(), was.Config())
			}
			pruned := 0
			for _, x := range was.Tensors() {
				y, ok := now.Tensor(x.Name)
				if !ok || !slices.Equal(x.Shape, y.Shape) || x.DType != y.DType {
					t.Fatalf("%s: %+v, want %+v", x.Name, y, x)
				}
				a, b := make([]byte, x.Size), make([]byte, x.Size)
				if err := was.Read(x, a); err != nil {
					t.Fatal(err)
				}
				if err := now.Read(y, b); err != nil {
					t.Fatal(err)
				}
				zeros := 0
				for i := 0; i < len(a); i += 2 {
					switch {
					case b[i] == 0 && b[i+1] == 0:
						zeros++
					case a[i] != b[i] || a[i+1] != b[i+1]:
						t.Fatalf("%s: element %d has changed", x.Name, i/2)
					}
				}
				if strings.HasSuffix(x.Name, "_proj.weight") {
					if n := len(a) / 4; zeros < n {
						t.Errorf("%s: %d zeros, want %d", x.Name, zeros, n)
					}
					pruned++
				} else if !bytes.Equal(a, b) {
					t.Errorf("%s has changed", x.Name)
				}
			}
			if pruned == 0 {
				t.Error("nothing was pruned")
			}
			before, err := tokenizer.LoadWith(was.ReadFile, source)
			if err != nil {
				t.Fatal(err)
			}
			after, err := tokenizer.Load(out)
			if err != nil {
				t.Fatal(err)
			}
			const text = "The model, pruned: <think> 50%"
			want, err := before.Encode(text, true)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := after.Encode(text, true); err != nil || !slices.Equal(got, want) {
				t.Errorf("the output's tokenizer gives %v %v, want %v", got, err, want)
			}
			if p := perplexity(t, out, ids); !(p > 1) || math.IsInf(p, 0) {
				t.Errorf("perplexity of the output: %g", p)
			}
		})
	}
}

// A model that is exported measures as before in bf16, and nearly so in types
// that round.
func TestExport(t *testing.T) {
	source, ids := filepath.Join(ggufData, "qwen3.gguf"), filepath.Join(ggufData, "qwen3.ids.safetensors")
	want := perplexity(t, source, ids)
	for kind, tol := range map[string]float64{"bf16": 0, "f16": 0, "q8_0": 0.01, "q4_0": 0.1} {
		out := filepath.Join(t.TempDir(), "out.gguf")
		crepe(t, "export", source, "-o", out, "--type", kind)
		if got := perplexity(t, out, ids); !(math.Abs(got-want) <= tol*want) {
			t.Errorf("%s: perplexity %.6f, want %.6f", kind, got, want)
		}
	}
}

func TestExportErrors(t *testing.T) {
	source := filepath.Join(ggufData, "qwen3.gguf")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"export", source}, exitUsage, "--output: want the file to write"},
		{[]string{"export", source, "-o", "out"}, exitUsage, `--output: "out", want a name that ends in .gguf`},
		{[]string{"export", source, "-o", "out.gguf", "--type", "q5_k"}, exitUsage, `--type: "q5_k", want one of bf16, f16, q8_0, q4_0`},
		{[]string{"export", source, "-o", source}, exitError, "exists: name another file"},
	} {
		var out, log bytes.Buffer
		if code := run(c.args, &out, &log); code != c.code || !strings.Contains(log.String(), c.want) {
			t.Errorf("%v: exit code %d, %s, want %d, %s", c.args, code, &log, c.code, c.want)
		}
	}
}

func TestGGUFErrors(t *testing.T) {
	for _, args := range [][]string{
		{"inspect", "absent.gguf"},
		{"prune", filepath.Join(ggufData, "golden.json")},
	} {
		var out, log bytes.Buffer
		if code := run(args, &out, &log); code != exitError || !strings.Contains(log.String(), args[1]) {
			t.Errorf("%v: exit code %d, %s", args, code, &log)
		}
	}
}

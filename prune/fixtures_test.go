package prune_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

// The fixtures are one tiny model an architecture; their README says what is in them.
const fixturesDir = "../testdata/fixtures"

// classes are the fixtures but those that differ from one of these in rotary embedding
// and names alone, for tests of what prunes.
func classes(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(golden.Folders(t, fixturesDir), func(name string) bool {
		return slices.Contains([]string{"deepseek-coder", "deepseek-llm", "llama-dynamic", "llama-mha", "phi3-longrope", "qwen2-yarn"}, name)
	})
}

func openModel(t testing.TB, dir string) (*checkpoint.Inventory, *model.Model) {
	t.Helper()
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

// fixtureIDs returns the sequences that a fixture's goldens are of.
func fixtureIDs(t testing.TB, name string) *windows.Set {
	t.Helper()
	ids := golden.Read(t, filepath.Join(fixturesDir, name, "golden.safetensors"))["input_ids"]
	return &windows.Set{Source: name, SeqLen: ids.Shape[1], Tokens: rows(ids)}
}

// fixtureOptions calibrates and measures on the goldens' sequences.
func fixtureOptions(t testing.TB, name string, r recipe.Recipe) prune.Options {
	ids := fixtureIDs(t, name)
	r.Calibration.Source, r.Eval.Source = name, name
	return prune.Options{
		Recipe: r, Model: name, Output: filepath.Join(t.TempDir(), "out"),
		Calibration: ids, Evaluation: ids, Memory: 1 << 30,
	}
}

// carriedOver compares an output with its input, tensor by tensor: Linears
// differ by as many zeros as want says, everything else by nothing. It returns
// the number of pruned Linears. The weights must be bfloat16.
func carriedOver(t *testing.T, in *checkpoint.Inventory, dir string, rep *prune.Report, want map[string]int) int {
	t.Helper()
	pruned := map[string]prune.LinearReport{}
	for _, l := range rep.Linears {
		if !l.Skipped {
			pruned[l.Name+".weight"] = l
		}
	}
	out, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if len(out.Tensors()) != len(in.Tensors()) {
		t.Fatalf("%d tensors, want %d", len(out.Tensors()), len(in.Tensors()))
	}
	checked := 0
	for _, src := range in.Tensors() {
		dst, ok := out.Tensor(src.Name)
		if !ok || dst.DType != src.DType || !slices.Equal(dst.Shape, src.Shape) {
			t.Fatalf("%s: %+v in the output, want as %+v", src.Name, dst, src)
		}
		a, b := make([]byte, src.Size), make([]byte, src.Size)
		if err := errors.Join(in.Read(src, a), out.Read(dst, b)); err != nil {
			t.Fatal(err)
		}
		l, ok := pruned[src.Name]
		if !ok {
			if !bytes.Equal(a, b) {
				t.Fatalf("%s is not pruned but differs", src.Name)
			}
			continue
		}
		checked++
		zeros := 0
		for i := 0; i < len(a); i += 2 {
			if b[i] == 0 && b[i+1] == 0 {
				zeros++
			} else if a[i] != b[i] || a[i+1] != b[i+1] {
				t.Fatalf("%s: element %d is kept but differs", src.Name, i/2)
			}
		}
		if zeros != want[l.Name] || zeros != l.Zeros {
			t.Fatalf("%s: %d zeros, want %d and as reported %d", src.Name, zeros, want[l.Name], l.Zeros)
		}
	}
	return checked
}

// fixtureRecipes are what every fixture is pruned by.
var fixtureRecipes = map[string]recipe.Recipe{
	"crepe 50%":       {Method: "crepe"},
	"ria 70% split":   {Method: "ria", Sparsity: "70%", Fused: "split"},
	"wanda 2:4 split": {Method: "wanda", Pattern: "2:4", Fused: "split"},
	"magnitude 4:8":   {Method: "magnitude", Pattern: "4:8"},
	"ria 60% dsnot":   {Method: "ria", Sparsity: "60%", Refine: "dsnot"},
	"crepe 70% swaps": {Method: "crepe", Sparsity: "70%", Refine: "swaps"},
	"ria 4:8 swaps":   {Method: "ria", Pattern: "4:8", Fused: "split", Refine: "swaps", Params: param.Values{"refine_cycles": 5}},
	"wanda 2:4 dsnot": {Method: "wanda", Pattern: "2:4", Fused: "split", Refine: "dsnot", Params: param.Values{"refine_layers": "all"}},
}

// TestFixtures prunes every fixture by every second recipe, in turn: the dense perplexity is
// that of transformers' logits, what is not pruned is carried over byte for
// byte (routers, a vision tower and a prediction head among it), counts are
// exact, and the output computes.
func TestFixtures(t *testing.T) {
	for f, name := range golden.Folders(t, fixturesDir) {
		for i, what := range slices.Sorted(maps.Keys(fixtureRecipes)) {
			if (f+i)%2 != 0 {
				continue
			}
			r := fixtureRecipes[what]
			t.Run(name+"/"+what, func(t *testing.T) {
				opt := fixtureOptions(t, name, r)
				inv, m := openModel(t, filepath.Join(fixturesDir, name))
				plan, err := prune.MakePlan(inv, m, opt)
				if err != nil {
					t.Fatal(err)
				}
				rep, err := prune.Run(t.Context(), inv, m, opt)
				if err != nil {
					t.Fatal(err)
				}
				checkCounts(t, inv, plan, rep, r)
				checkPerplexity(t, name, rep)
			})
		}
	}
}

func checkCounts(t *testing.T, inv *checkpoint.Inventory, plan *prune.Plan, rep *prune.Report, r recipe.Recipe) {
	t.Helper()
	want := map[string]int{}
	zeros, total, todo := 0, 0, 0
	for _, l := range plan.Linears {
		if strings.HasSuffix(l.Name, "mlp.gate") || strings.HasSuffix(l.Name, "block_sparse_moe.gate") {
			t.Errorf("%s is a router and planned", l.Name)
		}
		if !l.Skip {
			want[l.Name] = l.Pruned
			zeros, total, todo = zeros+l.Pruned, total+l.Rows*l.Cols, todo+1
		}
	}
	if n := carriedOver(t, inv, rep.Output, rep, want); n != todo {
		t.Errorf("%d pruned Linears, want %d", n, todo)
	}
	if share := float64(zeros) / float64(total); rep.Sparsity.Measured != share {
		t.Errorf("sparsity %v, want %v", rep.Sparsity.Measured, share)
	}
	if r.Pattern == "" {
		return
	}
	p, err := pattern.ParsePattern(r.Pattern)
	if err != nil {
		t.Fatal(err)
	}
	eachLinear(t, rep.Output, func(l *model.Linear) {
		if _, pruned := want[l.Name]; pruned && !mask.HoldsNM(weightOf(t, l), p) {
			t.Errorf("%s does not hold %v", l.Name, p)
		}
	})
}

// weightOf returns l's weight.
func weightOf(t *testing.T, l *model.Linear) *tensor.Weight {
	t.Helper()
	w, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// eachLinear opens a folder and calls f with every Linear of its blocks.
func eachLinear(t *testing.T, dir string, f func(l *model.Linear)) {
	t.Helper()
	_, m := openModel(t, dir)
	for i := range m.Blocks() {
		b, err := m.LoadBlock(i)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range b.Inputs() {
			for _, l := range in.Linears {
				f(l)
			}
		}
		b.Release()
	}
}

// checkPerplexity holds the dense model's against transformers' logits. Logits
// agree within 2e-4 (package model's TestGolden), so a token's negative
// log-likelihood, which no logit moves by more than it moves itself, within
// twice that, and so does the mean.
func checkPerplexity(t *testing.T, name string, rep *prune.Report) {
	t.Helper()
	g := golden.Read(t, filepath.Join(fixturesDir, name, "golden.safetensors"))
	want := golden.NLL(g["input_ids"], g["logits"])
	if got := float64(rep.Dense.NLL); !(math.Abs(got-want) <= 4e-4) {
		t.Errorf("dense: %v nats a token, want %v", got, want)
	}
	if got := rep.Pruned.Perplexity; !(got > 1 && got < 1e12) || got == rep.Dense.Perplexity {
		t.Errorf("pruned: perplexity %v, want a number above 1 that is not the dense %v", got, rep.Dense.Perplexity)
	}
}

// TestFixturesResume interrupts the pruning of every fixture half way.
func TestFixturesResume(t *testing.T) {
	refinements := append([]string{""}, refine.Names()...)
	for i, name := range classes(t) {
		t.Run(name, func(t *testing.T) {
			opt := fixtureOptions(t, name, recipe.Recipe{Refine: refinements[i%len(refinements)]})
			points := 0
			opt.Progress = func(progress.Update) { points++ }
			inv, m := openModel(t, filepath.Join(fixturesDir, name))
			if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
				t.Fatal(err)
			}
			want := content(t, opt.Output)

			opt.Output = filepath.Join(t.TempDir(), "out")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			left := points / 2
			opt.Progress = func(progress.Update) {
				if left--; left == 0 {
					cancel()
				}
			}
			if _, err := prune.Run(ctx, inv, m, opt); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want it cancelled", err)
			}
			opt.Progress, opt.Resume = nil, true
			if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
				t.Fatal(err)
			}
			compare(t, "resumed", content(t, opt.Output), want)
		})
	}
}

// unfuse writes the phi3 fixture as a Llama, with q, k, v, gate and up apart.
func unfuse(t *testing.T) string {
	t.Helper()
	inv, m := openModel(t, filepath.Join(fixturesDir, "phi3"))
	parts := map[string][]model.Part{}
	for i := range m.Blocks() {
		for _, l := range m.Linears(i) {
			parts[l.Name+".weight"] = l.Parts
		}
	}
	header, data := map[string]any{}, []byte(nil)
	add := func(name string, shape []int, bytes []byte) {
		header[name] = map[string]any{"dtype": "BF16", "shape": shape, "data_offsets": []int{len(data), len(data) + len(bytes)}}
		data = append(data, bytes...)
	}
	for _, x := range inv.Tensors() {
		bytes := make([]byte, x.Size)
		if err := inv.Read(x, bytes); err != nil {
			t.Fatal(err)
		}
		if len(parts[x.Name]) == 0 {
			add(x.Name, x.Shape, bytes)
		}
		stride := len(bytes) / x.Shape[0]
		for _, p := range parts[x.Name] {
			add(partName(x.Name, p), []int{p.Hi - p.Lo, x.Shape[1]}, bytes[p.Lo*stride:p.Hi*stride])
		}
	}
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := bytes.ReplaceAll(inv.Config(), []byte("Phi3ForCausalLM"), []byte("LlamaForCausalLM"))
	config = bytes.ReplaceAll(config, []byte(`"phi3"`), []byte(`"llama"`)) // model_type
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	file = append(append(file, head...), data...)
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666),
		os.WriteFile(filepath.Join(dir, "model.safetensors"), file, 0o666))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// partName is what a part of a fused tensor is called where it is not fused.
func partName(fused string, p model.Part) string {
	return strings.NewReplacer("qkv_proj", p.Name+"_proj", "gate_up_proj", p.Name+"_proj").Replace(fused)
}

// TestSplitEqualsUnfused prunes phi3 with its fused matrices split, and the
// same model stored as a Llama: the same weights must go. Whole, others go.
func TestSplitEqualsUnfused(t *testing.T) {
	for _, r := range []recipe.Recipe{
		{Method: "crepe"}, {Method: "ria", Sparsity: "60%"}, {Method: "ria", Pattern: "2:4"}, {Method: "magnitude", Sparsity: "33.3%"},
	} {
		llama := map[string][]byte{}
		opt := fixtureOptions(t, "phi3", r)
		inv, m := openModel(t, unfuse(t))
		if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
			t.Fatal(err)
		}
		eachLinear(t, opt.Output, func(l *model.Linear) { llama[l.Name] = bytes.Clone(weightOf(t, l).Bytes()) })
		for _, fused := range []string{"split", "whole"} {
			r.Fused = fused
			opt := fixtureOptions(t, "phi3", r)
			inv, m := openModel(t, filepath.Join(fixturesDir, "phi3"))
			if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
				t.Fatal(err)
			}
			differ := 0
			eachLinear(t, opt.Output, func(l *model.Linear) {
				for _, p := range l.Parts {
					want := llama[partName(l.Name, p)]
					if got := weightOf(t, l).Slice(p.Lo, p.Hi).Bytes(); len(want) == 0 || !bytes.Equal(got, want) {
						differ++
					}
				}
			})
			if (differ == 0) != (fused == "split") {
				t.Errorf("%s %s%s: %d parts differ from Llama's", fused, r.Method, r.Pattern, differ)
			}
		}
	}
}

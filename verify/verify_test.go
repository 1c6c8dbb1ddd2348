package verify_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/verify"
	"github.com/crepe-llm/crepe/windows"
)

// The fixtures are one tiny model an architecture; their README says what is in them.
const fixturesDir = "../testdata/fixtures"

func open(t *testing.T, dir string) *checkpoint.Inventory {
	t.Helper()
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	return inv
}

// pruned prunes a fixture and returns its inventory and the output folder.
func pruned(t *testing.T, fixture string, r recipe.Recipe) (dense *checkpoint.Inventory, dir string) {
	t.Helper()
	dense = open(t, filepath.Join(fixturesDir, fixture))
	m, err := model.Open(dense, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	ids := golden.Read(t, filepath.Join(fixturesDir, fixture, "golden.safetensors"))["input_ids"]
	text := &windows.Set{Source: fixture, SeqLen: ids.Shape[1]}
	for i := range ids.Shape[0] {
		var w []int32
		for _, id := range ids.I64[i*ids.Shape[1] : (i+1)*ids.Shape[1]] {
			w = append(w, int32(id))
		}
		text.Tokens = append(text.Tokens, w)
	}
	dir = filepath.Join(t.TempDir(), "out")
	r.Calibration.Source, r.Eval.Source = fixture, "none"
	if _, err := prune.Run(t.Context(), dense, m, prune.Options{Recipe: r, Output: dir, Calibration: text, Memory: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	return dense, dir
}

func findings(t *testing.T, dir string, dense *checkpoint.Inventory) []string {
	t.Helper()
	res, err := verify.Folder(t.Context(), dir, verify.Options{Dense: dense})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range res.Findings {
		lines = append(lines, f.String())
	}
	return lines
}

// TestGoodFolders finds nothing in what was written by any kind of recipe.
func TestGoodFolders(t *testing.T) {
	for name, c := range map[string]struct {
		fixture string
		r       recipe.Recipe
	}{
		"matrix, sharded input": {"llama3-gqa", recipe.Recipe{Method: "crepe"}},
		"rows":                  {"qwen2", recipe.Recipe{Method: "wanda", Sparsity: "60%"}},
		"skipped":               {"mistral", recipe.Recipe{Method: "magnitude", Sparsity: "37.5%", Skip: `q_proj|layers\.1\.`}},
		"2:4, fused":            {"phi3", recipe.Recipe{Method: "wanda", Pattern: "2:4"}},
		"4:8, split":            {"qwen3_5", recipe.Recipe{Method: "ria", Pattern: "4:8", Fused: "split"}},
		"permuted, split":       {"phi3", recipe.Recipe{Method: "magnitude", Pattern: "2:4", Permute: "lsa", Fused: "split"}},
		"allocated":             {"llama-mha", recipe.Recipe{Method: "wanda", Sparsity: "60%", Allocate: "owl"}},
		"allocated, alike":      {"llama-mha", recipe.Recipe{Method: "ria", Sparsity: "50%", Allocate: "owl", Skip: `layers\.[1-9]\.`}},
		"experts":               {"qwen3_moe", recipe.Recipe{Method: "crepe", Pattern: "2:4"}},
		"refined":               {"gemma2", recipe.Recipe{Method: "ria", Sparsity: "60%", Refine: "swaps"}},
		"refined and fitted":    {"qwen2", recipe.Recipe{Method: "ria", Sparsity: "60%", Refine: "swaps"}.With("fit_to", "dense")},
		"updated":               {"mixtral", recipe.Recipe{Method: "wanda", Sparsity: "50%", Update: "sparsegpt"}},
		"selected by an update": {"qwen3", recipe.Recipe{Method: "admm", Pattern: "2:4"}},
		"permuted and selected": {"qwen3", recipe.Recipe{Method: "sparsegpt", Pattern: "2:4", Permute: "cp"}},
	} {
		t.Run(name, func(t *testing.T) {
			dense, dir := pruned(t, c.fixture, c.r)
			if got := findings(t, dir, nil); len(got) > 0 {
				t.Errorf("by itself:\n%s", strings.Join(got, "\n"))
			}
			res, err := verify.Folder(t.Context(), dir, verify.Options{Dense: dense})
			if err != nil || len(res.Findings) > 0 {
				t.Fatalf("beside the dense model: %v (%v)", res.Findings, err)
			}
			manifest, err := prune.ReadManifest(dir)
			if err != nil {
				t.Fatal(err)
			}
			want := verify.Result{Findings: []verify.Finding{}, Tensors: len(dense.Tensors()), Files: 2, Compared: true}
			for _, l := range manifest.Linears {
				if !l.Skipped {
					want.Linears, want.Weights, want.Zeros = want.Linears+1, want.Weights+l.Rows*l.Cols, want.Zeros+l.Zeros
				}
			}
			if got := *res; got.Linears != want.Linears || got.Weights != want.Weights || got.Zeros != want.Zeros ||
				got.Tensors != want.Tensors || got.Files != want.Files || !got.Compared || want.Zeros == 0 {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// A folder can be pruned again: what was zero before is no finding, nor is the
// manifest of the first run.
func TestPrunedAgain(t *testing.T) {
	_, first := pruned(t, "llama3-gqa", recipe.Recipe{Method: "magnitude", Sparsity: "30%"})
	dense := open(t, first)
	m, err := model.Open(dense, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "again")
	r := recipe.Recipe{Method: "magnitude", Sparsity: "20%", Eval: recipe.Eval{Source: "none"}}
	if _, err := prune.Run(t.Context(), dense, m, prune.Options{Recipe: r, Output: dir}); err != nil {
		t.Fatal(err)
	}
	if got := findings(t, dir, dense); len(got) > 0 {
		t.Error(strings.Join(got, "\n"))
	}
}

// A GGUF file as the dense model: the folder that it stands for is what the output
// is compared with, and whose modes it takes.
func TestFromGGUF(t *testing.T) {
	dense, err := hf.OpenModel("../gguf/hf/testdata/llama.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer dense.Close()
	m, err := model.Open(dense, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	r := recipe.Recipe{Method: "magnitude", Eval: recipe.Eval{Source: "none"}}
	if _, err := prune.Run(t.Context(), dense, m, prune.Options{Recipe: r, Output: dir}); err != nil {
		t.Fatal(err)
	}
	if got := findings(t, dir, dense); len(got) > 0 {
		t.Error(strings.Join(got, "\n"))
	}
	st, err := os.Stat(dir)
	if err != nil || runtime.GOOS != "windows" && st.Mode().Perm()&0o700 != 0o700 {
		t.Fatal(st.Mode(), err)
	}
	parent, err := os.Stat("../gguf/hf/testdata")
	if err != nil || st.Mode().Perm()&^parent.Mode().Perm() != 0 || st.Mode().Perm()&0o070 == 0o040 {
		t.Errorf("mode %v, want that of a folder, at most %v (%v)", st.Mode(), parent.Mode(), err)
	}
}

// damage is a change to a folder, and what is found then.
type damage struct {
	what   string
	change func(t *testing.T, dir string)
	alone  string // found without the dense model; empty: nothing is
	beside string // found with it
}

func TestDamagedFolders(t *testing.T) {
	const q0, q1 = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"
	for name, c := range map[string]struct {
		r       recipe.Recipe
		damages []damage
	}{
		"matrix": {recipe.Recipe{Method: "magnitude", Sparsity: "50%"}, []damage{
			{"a kept weight", setWeight(q0, false, []byte{0x11, 0x3f}), "crepe.json, files: model.safetensors has SHA-256 ", q0 + ": 1 weights are not the dense model's, the first at ["},
			{"a zero less", setWeight(q0, true, []byte{0x11, 0x3f}), q0 + ": zeros: ", q0 + ": 1 weights are not the dense model's"},
			{"a zero more", setWeight(q0, false, []byte{0, 0}), q0 + ": 2049 zeros (0.500244140625), the manifest says 2048 (0.5)", q0 + ": zeros that the dense model has not: 2049 pruned, want at most 2048"},
			{"two tensors swapped", swap(q0, q1), "crepe.json, files: model.safetensors", q1 + ": "},
			{"a tensor that is not pruned", setWeight("model.norm.weight", false, []byte{0x11, 0x3f}), "crepe.json, files: model.safetensors", "model.norm.weight: not pruned, but differs from the dense model's from byte "},
			{"config.json", replace("config.json", "{", "{ "), "crepe.json, files: config.json has SHA-256 ", "config.json: differs from the dense model's file from byte 1 on"},
			{"another file", replace("generation_config.json", "}", " }"), "", "generation_config.json: differs"},
			{"another file is longer", replace("generation_config.json", "", "x"), "", "generation_config.json: differs"},
			{"no other file", remove("generation_config.json"), "", "generation_config.json: missing"},
			{"zeros of the manifest", replace("crepe.json", `"zeros": 2048`, `"zeros": 2047`), q0 + ": 2048 zeros (0.5), the manifest says 2047 (0.5)", q0},
			{"sparsity of a Linear", replace("crepe.json", `"sparsity": 0.5,`+"\n      \"zeros\"", `"sparsity": 0.6,`+"\n      \"zeros\""), q0 + ": 2048 zeros (0.5), the manifest says 2048 (0.6)", q0},
			{"measured sparsity", replace("crepe.json", `"measured": 0.5`, `"measured": 0.6`), "crepe.json, sparsity: 0.6 measured", "crepe.json, sparsity: 0.6 measured"},
			{"target sparsity", replace("crepe.json", `"target": 0.5`, `"target": 0.6`), "crepe.json, sparsity: target 0.6, the recipe says 0.5", "crepe.json, sparsity: target 0.6"},
			{"the recipe", replace("crepe.json", `"sparsity": "50%"`, `"sparsity": "60%"`), q0 + ": zeros: 2048 pruned, want at least 2457 (60% of 64 × 64)", q0},
			{"a Linear is renamed", replace("crepe.json", "layers.0.self_attn.q_proj", "layers.7.self_attn.q_proj"), "crepe.json, linears: model.layers.0.self_attn.q_proj is not listed", "crepe.json, linears: model.layers.7.self_attn.q_proj is listed, the model has no such Linear"},
			{"a Linear is listed twice", replace("crepe.json", "layers.0.self_attn.k_proj", "layers.0.self_attn.q_proj"), "crepe.json, linears: model.layers.0.self_attn.q_proj is listed twice", "k_proj is not listed"},
			{"a shape", replace("crepe.json", `"rows": 64`, `"rows": 65`), "q_proj is 64 × 64, the manifest says 65 × 64", "q_proj is 64 × 64"},
			{"skipped", replace("crepe.json", `"zeros": 2048`, `"skipped": true, "zeros": 2048`), "q_proj: skipped is true, the recipe makes it false", "q_proj: skipped"},
			{"an order that nobody asked for", replace("crepe.json", `"zeros": 2048`, `"zeros": 2048, "permuted": [{"end_row": 64}]`), "an order of columns that the recipe has no place for", "an order of columns"},
			{"dense weights beside", func(t *testing.T, dir string) {
				if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), []byte("x"), 0o666); err != nil {
					t.Fatal(err)
				}
			}, "pytorch_model.bin: the dense weights in another format, or a training state: not written by crepe", "pytorch_model.bin: "},
			{"a hash of the input", replace("crepe.json", `"model.safetensors": "`, `"model.safetensors": "0`), "", "crepe.json, inputs: model.safetensors of the dense model has SHA-256 "},
			{"an allocation that nobody asked for", replace("crepe.json", `"linears"`, `"allocation": {"method": "owl", "blocks": []}, "linears"`), "crepe.json, allocation: not that of the recipe", "crepe.json, allocation"},
		}},
		"rows": {recipe.Recipe{Method: "magnitude", Sparsity: "50%", Compare: "row"}, []damage{
			{"a zero less", setWeight(q0, true, []byte{0x11, 0x3f}), q0 + ": zeros: row 0: 31 pruned, want at least 32 (50% of 64)", q0},
			{"a zero more", setWeight(q0, false, []byte{0, 0}), q0, q0 + ": zeros that the dense model has not: row 0: 33 pruned, want at most 32"},
		}},
		"2:4": {recipe.Recipe{Method: "magnitude", Pattern: "2:4"}, []damage{
			{"a zero less", setWeight(q0, true, []byte{0x11, 0x3f}), q0 + ": zeros: weights [0, 0] to [0, 3]: 1 pruned, want at least 2 (pattern 2:4)", q0},
			{"a zero more", setWeight(q0, false, []byte{0, 0}), q0, q0 + ": zeros that the dense model has not: weights [0, 0] to [0, 3]: 3 pruned, want at most 2"},
		}},
		"permuted": {recipe.Recipe{Method: "magnitude", Pattern: "2:4", Permute: "lsa"}, []damage{
			{"a zero less", setWeight(q0, true, []byte{0x11, 0x3f}), q0 + ": zeros: row 0, columns [", q0},
			{"the order", replace("crepe.json", `"order": "`, `"order": "AAAA`), q0 + ": zeros: the order of the columns is none of 64 columns", q0},
			{"the rows of the order", replace("crepe.json", `"end_row": 64`, `"end_row": 63`), "an order of columns that the recipe has no place for", q0},
		}},
		"allocated": {recipe.Recipe{Method: "magnitude", Sparsity: "50%", Allocate: "alphapruning"}, []damage{
			{"a share", replace("crepe.json", `"blocks": [`, `"blocks": [{"weights": 1, "measure": 1, "sparsity": 0.5},`), "crepe.json, allocation: ", "crepe.json, allocation: "},
			{"weights", replace("crepe.json", `"weights": `, `"weights": 1`), "crepe.json, allocation: block 0 has a share of ", "crepe.json, allocation: block 0"},
			{"a measure", replace("crepe.json", `"measure": `, `"measure": 1`), "crepe.json, allocation: block ", "crepe.json, allocation: block "},
		}},
		"updated": {recipe.Recipe{Method: "magnitude", Sparsity: "50%", Update: "sparsegpt"}, []damage{
			{"a zero less", setWeight(q0, true, []byte{0x11, 0x3f}), q0 + ": zeros: 2047 pruned, want at least 2048", q0},
			{"a zero more", setWeight(q0, false, []byte{0, 0}), q0 + ": 2049 zeros", q0},
			{"a kept weight", setWeight(q0, false, []byte{0x11, 0x3f}), "crepe.json, files: model.safetensors has SHA-256 ", "crepe.json, files: model.safetensors"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dense, good := pruned(t, "llama-mha", c.r)
			for _, d := range c.damages {
				dir := filepath.Join(t.TempDir(), "copy")
				if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
					t.Fatal(err)
				}
				d.change(t, dir)
				alone, beside := findings(t, dir, nil), findings(t, dir, dense)
				if d.alone == "" && len(alone) > 0 {
					t.Errorf("%s: %q found, which only the dense model shows", d.what, alone)
				}
				for _, x := range []struct {
					want string
					got  []string
				}{{d.alone, alone}, {d.beside, beside}} {
					if x.want != "" && !slices.ContainsFunc(x.got, func(f string) bool { return strings.Contains(f, x.want) }) {
						t.Errorf("%s: found\n  %s\nwant %s", d.what, strings.Join(x.got, "\n  "), x.want)
					}
				}
			}
		})
	}
}

// setWeight overwrites the first element of a tensor that is zero, or is not.
func setWeight(name string, zero bool, to []byte) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		edit(t, dir, func(inv *checkpoint.Inventory, write func(name string, data []byte)) {
			data := content(t, inv, name)
			for at := 0; at < len(data); at += 2 {
				if (data[at] == 0 && data[at+1]&0x7f == 0) == zero {
					copy(data[at:], to)
					write(name, data)
					return
				}
			}
			t.Fatalf("%s: no element to change", name)
		})
	}
}

func swap(a, b string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		edit(t, dir, func(inv *checkpoint.Inventory, write func(name string, data []byte)) {
			x, y := content(t, inv, a), content(t, inv, b)
			write(a, y)
			write(b, x)
		})
	}
}

func content(t *testing.T, inv *checkpoint.Inventory, name string) []byte {
	t.Helper()
	x, ok := inv.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	data := make([]byte, x.Size)
	if err := inv.Read(x, data); err != nil {
		t.Fatal(err)
	}
	return data
}

// edit changes tensors of a folder where they lie.
func edit(t *testing.T, dir string, f func(inv *checkpoint.Inventory, write func(name string, data []byte))) {
	t.Helper()
	inv := open(t, dir)
	f(inv, func(name string, data []byte) {
		x, _ := inv.Tensor(name)
		file, err := os.OpenFile(filepath.Join(dir, x.File), os.O_WRONLY, 0)
		if err == nil {
			_, err = file.WriteAt(data, x.Offset)
		}
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
	})
}

// replace changes the first such text of a file; an empty one is at its end.
func replace(name, old, with string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := append(slices.Clone(text), with...)
		if old != "" {
			changed = bytes.Replace(text, []byte(old), []byte(with), 1)
		}
		if bytes.Equal(text, changed) {
			t.Fatalf("%s has no %s", name, old)
		}
		if err := os.WriteFile(path, changed, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// Another model's folder as the dense one: hashes, names and shapes tell.
func TestAnotherDenseModel(t *testing.T) {
	_, dir := pruned(t, "llama-mha", recipe.Recipe{Method: "magnitude"})
	got := findings(t, dir, open(t, filepath.Join(fixturesDir, "qwen2")))
	for _, want := range []string{
		"crepe.json, inputs: config.json of the dense model has SHA-256 ",
		"q_proj.bias: missing, the dense model has it",
		"config.json: differs",
	} {
		if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("found\n  %s\nwant %s", strings.Join(got, "\n  "), want)
		}
	}
}

// The hashes in the manifest are those of the files.
func TestManifestHasHashes(t *testing.T) {
	_, dir := pruned(t, "llama3-gqa", recipe.Recipe{Method: "magnitude"})
	manifest, err := prune.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		if got, want := manifest.Files[name], hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// One of an earlier version has none: its weights are counted, not hashed.
	manifest.Files = nil
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "crepe.json"), text, 0o666); err != nil {
		t.Fatal(err)
	}
	res, err := verify.Folder(t.Context(), dir, verify.Options{})
	if err != nil || res.Files != 0 || len(res.Findings) != 0 {
		t.Errorf("%+v (%v), want nothing found and no file hashed", res, err)
	}
}

func TestFoldersThatCannotBeVerified(t *testing.T) {
	_, dir := pruned(t, "llama-mha", recipe.Recipe{Method: "magnitude"})
	for _, c := range []struct {
		dir    string
		change func(*testing.T, string)
		want   string
	}{
		{filepath.Join(fixturesDir, "llama-mha"), nil, "llama-mha: no crepe.json in it: not a folder that crepe prune wrote"},
		{filepath.Join(dir, "nothing"), nil, "nothing: no crepe.json in it"},
		{dir, replace("crepe.json", `"50%"`, `"150%"`), `crepe.json: recipe: sparsity "150%"`},
		{dir, replace("crepe.json", "{", ""), "crepe.json: "},
		{dir, func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "crepe.json"), []byte("{}"), 0o666); err != nil {
				t.Fatal(err)
			}
			remove("config.json")(t, dir)
		}, "no config.json in it"},
	} {
		if c.change != nil {
			c.change(t, c.dir)
		}
		if res, err := verify.Folder(t.Context(), c.dir, verify.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, error %v, want %s", c.dir, res, err, c.want)
		}
	}
}

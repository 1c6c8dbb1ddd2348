package prune_test

import (
	"hash/crc32"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/update"
	"github.com/crepe-llm/crepe/windows"
)

// The goldens of testdata/golden/sparsegpt: its README says how they compare.
const sparseGPTDir = goldenDir + "/sparsegpt"

// TestSparseGPTMasksEqualPyTorch prunes every Linear with all Linears before it
// dense, as the goldens were made: a near tie that goes the other way must not
// decide anything elsewhere. Rows are compared whole, so 99.9 % equal rows are at
// least 99.9 % equal bits. One near tie is allowed anywhere: it lies between two
// rows, whose later columns then change by the update, and with them the
// thresholds that later blocks of columns share, so that up to 1 row in 32 of
// one Linear has been seen to differ.
func TestSparseGPTMasksEqualPyTorch(t *testing.T) {
	wants := map[string]goldenConfig{}
	for _, path := range sparseGPTGoldens(t) {
		wants[path] = readGolden(t, path)
	}
	ids := rows(golden.Read(t, goldenDir+"/calibration.safetensors")["input_ids"])
	seen, total, differ := map[string]int{}, map[string]int{}, map[string]int{}
	eachDenseGram(t, ids, func(l *model.Linear, g *stats.Gram) {
		for path, c := range wants {
			i := seen[path]
			if seen[path]++; i >= len(c.Linears) || c.Linears[i].Name != l.Name {
				t.Fatalf("%s: %s is not its Linear %d", path, l.Name, i)
			}
			want, target := c.Linears[i], c.target(t)
			f, err := update.Factorize(g, target.Pattern)
			if err != nil {
				t.Fatal(err)
			}
			w := tensor.NewWeight(l.W.DType, l.W.Rows, l.W.Cols)
			copy(w.Bytes(), l.W.Bytes())
			if err := f.Run(t.Context(), w, nil, target, make([]float32, w.Rows*w.Cols)); err != nil {
				t.Fatal(err)
			}
			if got := w.Zeros(); got != want.Pruned {
				t.Errorf("%s: %s: %d pruned, want %d", path, l.Name, got, want.Pruned)
			}
			got := rowCRCs(w)
			if len(got) != len(want.RowCRC) {
				t.Fatalf("%s: %s: %d rows, want %d", path, l.Name, len(got), len(want.RowCRC))
			}
			n := 0
			for i := range got {
				if got[i] != want.RowCRC[i] {
					n++
				}
			}
			if n > max(len(got)/32, 2) {
				t.Errorf("%s: %s: %d of %d rows differ", path, l.Name, n, len(got))
			}
			differ[path] += n
			total[path] += len(got)
		}
	})
	for path, c := range wants {
		if seen[path] != len(c.Linears) {
			t.Errorf("%s: %d Linears, want %d", path, seen[path], len(c.Linears))
		}
		if differ[path]*1000 > total[path] {
			t.Errorf("%s: %d of %d rows differ, want at most 1 in 1000", path, differ[path], total[path])
		}
	}
}

func sparseGPTGoldens(t *testing.T) []string {
	paths, err := filepath.Glob(sparseGPTDir + "/*.json")
	if err != nil || len(paths) != 4 {
		t.Fatalf("%d files in %s (%v), want 4", len(paths), sparseGPTDir, err)
	}
	return paths
}

// eachDenseGram calls yield with every Linear of the demo model and the Gram
// matrix of its input in the dense model.
func eachDenseGram(t *testing.T, ids [][]int32, yield func(l *model.Linear, g *stats.Gram)) {
	_, m := openDemo(t)
	st := m.NewState()
	hidden := make([]tensor.Matrix, len(ids))
	for i := range ids {
		hidden[i] = tensor.NewMatrix(len(ids[i]), m.Width())
		if err := m.Embed(hidden[i], ids[i]); err != nil {
			t.Fatal(err)
		}
	}
	for b := range m.Blocks() {
		block, err := m.LoadBlock(b)
		if err != nil {
			t.Fatal(err)
		}
		acc := map[*model.Input]*stats.Accumulator{}
		for _, in := range block.Inputs() {
			acc[in] = stats.NewAccumulator(in.Linears[0].W.Cols).WithGram()
		}
		for _, x := range hidden {
			if err := block.Observe(st, x, func(in *model.Input, x tensor.Matrix) { acc[in].Add(x) }); err != nil {
				t.Fatal(err)
			}
		}
		for _, in := range block.Inputs() {
			g := acc[in].Input(len(ids)).Gram
			for _, l := range in.Linears {
				yield(l, g)
			}
		}
		for _, x := range hidden {
			if err := block.Forward(st, x); err != nil {
				t.Fatal(err)
			}
		}
		block.Release()
	}
}

// rowCRCs is the goldens' row_crc of the weights that are not zero.
func rowCRCs(w *tensor.Weight) []byte {
	var out []byte
	row := make([]float32, w.Cols)
	for i := range w.Rows {
		w.Row(row, i)
		bits := make([]byte, w.Cols/8) // every width is a multiple of 8
		for j, v := range row {
			if v != 0 {
				bits[j/8] |= 1 << (j % 8)
			}
		}
		out = append(out, byte(crc32.ChecksumIEEE(bits)))
	}
	return out
}

// TestSparseGPTPerplexityEqualsPyTorch prunes as a user does. Over a whole run
// a near tie that goes the other way moves what all later blocks see.
func TestSparseGPTPerplexityEqualsPyTorch(t *testing.T) {
	read := func(name string) *windows.Set {
		tokens := rows(golden.Read(t, filepath.Join(goldenDir, name))["input_ids"])
		return &windows.Set{Source: name, Tokens: tokens, SeqLen: len(tokens[0])}
	}
	calibration, evaluation := read("calibration.safetensors"), read("evaluation.safetensors")
	for _, path := range sparseGPTGoldens(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			want := readGolden(t, path)
			r := recipe.Recipe{Method: "sparsegpt", Sparsity: want.Pattern}
			if strings.Contains(want.Pattern, ":") {
				r.Sparsity, r.Pattern = "", want.Pattern
			}
			out := filepath.Join(t.TempDir(), "out")
			inv, m := openDemo(t)
			rep, err := prune.Run(t.Context(), inv, m, prune.Options{Recipe: r, Output: out, Calibration: calibration, Evaluation: evaluation})
			if err != nil {
				t.Fatal(err)
			}
			if got := rep.Pruned.Perplexity; !(math.Abs(got-want.PrunedPPL) <= 5e-3*want.PrunedPPL) {
				t.Errorf("perplexity %v, want %v", got, want.PrunedPPL)
			}
			if got := rep.Sparsity.Measured; !(math.Abs(got-rep.Sparsity.Target) <= 1e-4) {
				t.Errorf("sparsity %v, want %v", got, rep.Sparsity.Target)
			}
		})
	}
}

package prune_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

// The goldens of testdata/golden: its README describes the format, the near
// ties and the tolerances.
const goldenDir = "../testdata/golden"

type goldenConfig struct {
	Method, Pattern, Group    string
	Alpha, Beta, Gamma, Power float64
	Kernel                    int
	Dense                     float64 `json:"dense_perplexity"`
	PrunedPPL                 float64 `json:"pruned_perplexity"`
	Linears                   []goldenLinear
}

func readGolden(t *testing.T, path string) goldenConfig {
	t.Helper()
	var c goldenConfig
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

type goldenLinear struct {
	Name       string
	Rows, Cols int
	Pruned     int
	SHA256     string
	RowCRC     []byte  `json:"row_crc"`
	NearKept   []int   `json:"near_kept"`
	NearPruned []int   `json:"near_pruned"`
	Loss       float64 // of an update; 0: not measured
}

// TestMasksEqualPyTorch makes every golden configuration's masks block by
// block. The near ties are put right in each before it is applied, so that the
// next block sees what PyTorch's saw and must agree just as strictly.
func TestMasksEqualPyTorch(t *testing.T) {
	paths, err := filepath.Glob(goldenDir + "/*.json")
	if err != nil || len(paths) != 29 {
		t.Fatalf("%d files in %s (%v), want 29", len(paths), goldenDir, err)
	}
	ids := golden.Read(t, goldenDir+"/calibration.safetensors")["input_ids"]
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !strings.HasSuffix(name, "-50") && !strings.HasSuffix(name, "-2of4") {
				t.Skip("-short: 50 % and 2:4 only")
			}
			testMasks(t, path, rows(ids))
		})
	}
}

func rows(ids golden.Tensor) [][]int32 {
	out := make([][]int32, ids.Shape[0])
	for i := range out {
		for _, id := range ids.I64[i*ids.Shape[1] : (i+1)*ids.Shape[1]] {
			out[i] = append(out[i], int32(id))
		}
	}
	return out
}

func testMasks(t *testing.T, path string, ids [][]int32) {
	want := readGolden(t, path)
	method, err := score.Lookup(want.Method)
	if err != nil {
		t.Fatal(err)
	}
	target := want.target(t)
	linears := map[string]goldenLinear{}
	for _, l := range want.Linears {
		linears[l.Name] = l
	}
	_, m := openDemo(t)
	st := m.NewState()
	hidden := make([]tensor.Matrix, len(ids))
	for i := range ids {
		hidden[i] = tensor.NewMatrix(len(ids[i]), m.Width())
		if err := m.Embed(hidden[i], ids[i]); err != nil {
			t.Fatal(err)
		}
	}
	p := score.Params{Alpha: want.Alpha, Beta: want.Beta, Gamma: want.Gamma, Kernel: want.Kernel, Power: want.Power}
	if want.Method == "ria" {
		p = method.Defaults
	}
	seen := 0
	for b := range m.Blocks() {
		block, err := m.LoadBlock(b)
		if err != nil {
			t.Fatal(err)
		}
		acc := map[*model.Input]*stats.Accumulator{}
		for _, in := range block.Inputs() {
			acc[in] = stats.NewAccumulator(in.Linears[0].W.Cols)
		}
		for _, x := range hidden {
			block.Observe(st, x, func(in *model.Input, x tensor.Matrix) { acc[in].Add(x) })
		}
		for _, in := range block.Inputs() {
			for _, l := range in.Linears {
				scores := make([]float32, l.W.Rows*l.W.Cols)
				if err := method.Score(scores, l.W, acc[in].Input(len(ids)), p); err != nil {
					t.Fatal(err)
				}
				got, err := mask.Select(scores, l.W.Rows, l.W.Cols, target)
				if err != nil {
					t.Fatal(err)
				}
				applyGolden(t, l, got, linears[l.Name])
				seen++
			}
		}
		for _, x := range hidden {
			block.Forward(st, x)
		}
		block.Release()
	}
	if seen != len(want.Linears) {
		t.Errorf("%d Linears, want %d", seen, len(want.Linears))
	}
}

func (c goldenConfig) target(t *testing.T) pattern.Target {
	var target pattern.Target
	var err error
	if strings.Contains(c.Pattern, ":") {
		target.Pattern, err = pattern.ParsePattern(c.Pattern)
	} else {
		target.Sparsity, err = pattern.ParseSparsity(c.Pattern)
	}
	if err == nil {
		target.Group, err = pattern.ParseGroup(c.Group)
	}
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// applyGolden compares got with want outside the near ties and applies it with
// the near ties as PyTorch decided them.
func applyGolden(t *testing.T, l *model.Linear, got *mask.Mask, want goldenLinear) {
	t.Helper()
	if l.W.Rows != want.Rows || l.W.Cols != want.Cols {
		t.Fatalf("%s: %d × %d, want %d × %d", l.Name, l.W.Rows, l.W.Cols, want.Rows, want.Cols)
	}
	if got.Pruned() != want.Pruned {
		t.Errorf("%s: %d pruned, want %d", l.Name, got.Pruned(), want.Pruned)
	}
	bits := make([]byte, want.Rows*want.Cols/8) // every width is a multiple of 8
	for k := range want.Rows * want.Cols {
		if got.Kept(k/want.Cols, k%want.Cols) {
			bits[k/8] |= 1 << (k % 8)
		}
	}
	for _, k := range want.NearKept {
		bits[k/8] |= 1 << (k % 8)
	}
	for _, k := range want.NearPruned {
		bits[k/8] &^= 1 << (k % 8)
	}
	if sum := sha256.Sum256(bits); hex.EncodeToString(sum[:]) != want.SHA256 {
		var differ []int
		for i := range want.Rows {
			if byte(crc32.ChecksumIEEE(bits[i*want.Cols/8:(i+1)*want.Cols/8])) != want.RowCRC[i] {
				differ = append(differ, i)
			}
		}
		t.Fatalf("%s: the mask differs outside the near ties, in %d of %d rows: %v", l.Name, len(differ), want.Rows, differ)
	}
	for k := range want.Rows * want.Cols {
		if bits[k/8]>>(k%8)&1 == 0 {
			l.W.Zero(k)
		}
	}
}

// TestRunPerplexityEqualsPyTorch prunes as a user does and measures what was
// written. A near tie that goes the other way moves perplexity by less than
// 3e-4 (the goldens' README); a wrong mask, sum or order of work by more.
func TestRunPerplexityEqualsPyTorch(t *testing.T) {
	read := func(name string) *windows.Set {
		tokens := rows(golden.Read(t, filepath.Join(goldenDir, name))["input_ids"])
		return &windows.Set{Source: name, Tokens: tokens, SeqLen: len(tokens[0])}
	}
	calibration, evaluation := read("calibration.safetensors"), read("evaluation.safetensors")
	for _, name := range []string{"magnitude-50", "wanda-50", "ria-50", "crepe-50", "crepe-70", "wanda-2of4", "crepe-2of4", "crepe-4of8"} {
		t.Run(name, func(t *testing.T) {
			want := readGolden(t, filepath.Join(goldenDir, name+".json"))
			r := recipe.Recipe{Method: want.Method, Sparsity: want.Pattern}
			if strings.Contains(want.Pattern, ":") {
				r.Sparsity, r.Pattern = "", want.Pattern
			}
			inv, m := openDemo(t)
			rep, err := prune.Run(t.Context(), inv, m, prune.Options{
				Recipe: r, Output: filepath.Join(t.TempDir(), "out"), Calibration: calibration, Evaluation: evaluation,
			})
			if err != nil {
				t.Fatal(err)
			}
			if !(math.Abs(rep.Dense.Perplexity-want.Dense) <= 1e-5*want.Dense) {
				t.Errorf("dense perplexity %v, want %v", rep.Dense.Perplexity, want.Dense)
			}
			if !(math.Abs(rep.Pruned.Perplexity-want.PrunedPPL) <= 3e-4*want.PrunedPPL) {
				t.Errorf("pruned perplexity %v, want %v", rep.Pruned.Perplexity, want.PrunedPPL)
			}
		})
	}
}

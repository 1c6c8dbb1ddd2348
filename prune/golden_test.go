package prune_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
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

// allGoldens is the environment variable that, if it is not empty, has every golden
// configuration tested. Without it others of the same kind stand for those in rest.
const allGoldens = "CREPE_TEST_GOLDENS"

var rest = []string{
	"crepe-4of8", "crepe-60", "crepe-70", "crepe-other-60", "crepe-other-70",
	"ria-4of8", "ria-60", "wanda-4of8", "wanda-60", "wanda-70",
}

// TestMasksEqualPyTorch holds what Run writes to the masks of the golden
// configurations, without tolerance but for the near ties.
func TestMasksEqualPyTorch(t *testing.T) {
	paths, err := filepath.Glob(goldenDir + "/*.json")
	if err != nil || len(paths) != 29 {
		t.Fatalf("%d files in %s (%v), want 29", len(paths), goldenDir, err)
	}
	calibration := goldenWindows(t, "calibration.safetensors")
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			if os.Getenv(allGoldens) == "" && slices.Contains(rest, name) {
				t.Skip("others stand for it without " + allGoldens + "=all")
			}
			testMasks(t, readGolden(t, path), calibration)
		})
	}
}

// goldenWindows reads the ids of a file of the goldens.
func goldenWindows(t *testing.T, name string) *windows.Set {
	t.Helper()
	tokens := rows(golden.Read(t, filepath.Join(goldenDir, name))["input_ids"])
	return &windows.Set{Source: name, Tokens: tokens, SeqLen: len(tokens[0])}
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

// testMasks prunes the demo model by c. A block whose near ties went another way
// than PyTorch's is where the comparison would end, since the next block sees
// another input. The run is then made again on a model whose blocks up to that one
// are as PyTorch pruned them, and left as they are: so every block sees what
// PyTorch's saw and must agree just as strictly.
func testMasks(t *testing.T, c goldenConfig, calibration *windows.Set) {
	linears := map[string]goldenLinear{}
	for _, l := range c.Linears {
		linears[l.Name] = l
	}
	dense, m := openDemo(t)
	from, seen, right := 0, 0, ""
	for from < m.Blocks() {
		inv, m := dense, m
		opt := prune.Options{Recipe: c.recipe(t), Output: filepath.Join(t.TempDir(), "out"), Calibration: calibration}
		if from > 0 {
			inv, m = openModel(t, right)
			opt.Recipe.Skip = fmt.Sprintf(`^model\.layers\.[0-%d]\.`, from-1)
		}
		if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
			t.Fatal(err)
		}
		out, _ := openModel(t, opt.Output)
		for same := true; same && from < m.Blocks(); from++ {
			for _, l := range m.Linears(from) {
				want := linears[l.Name]
				got := keptBits(t, out, l, want)
				if !want.putRight(t, got) {
					same = false
				}
				seen++
			}
			if !same && from < m.Blocks()-1 {
				if right == "" {
					right = filepath.Join(t.TempDir(), "right")
					if err := os.CopyFS(right, os.DirFS(dense.Dir())); err != nil {
						t.Fatal(err)
					}
				}
				for b := range from + 1 {
					for _, l := range m.Linears(b) {
						writePruned(t, right, dense, out, l.Name, linears[l.Name])
					}
				}
				t.Logf("near ties of block %d went another way", from)
			}
		}
	}
	if seen != len(c.Linears) {
		t.Errorf("%d Linears, want %d", seen, len(c.Linears))
	}
}

// recipe returns what Run makes the masks of c by.
func (c goldenConfig) recipe(t *testing.T) recipe.Recipe {
	t.Helper()
	method, err := score.Lookup(c.Method)
	if err != nil {
		t.Fatal(err)
	}
	r := recipe.Recipe{Method: c.Method}
	switch {
	case strings.Contains(c.Pattern, ":"):
		r.Pattern = c.Pattern
	case c.Group != method.Group.String():
		r.Sparsity, r.Compare = c.Pattern, c.Group
	default:
		r.Sparsity = c.Pattern
	}
	if c.Method == "crepe" {
		r.Params = param.Values{"alpha": c.Alpha, "beta": c.Beta, "gamma": c.Gamma, "kernel": c.Kernel, "power": c.Power}
	}
	return r
}

// bits are a mask as the goldens' README describes it.
type bits []byte

// keptBits returns which weights of l are not zero in inv. The demo model has no
// zero of its own.
func keptBits(t *testing.T, inv *checkpoint.Inventory, l model.LinearSpec, want goldenLinear) bits {
	t.Helper()
	if l.Rows != want.Rows || l.Cols != want.Cols {
		t.Fatalf("%s: %d × %d, want %d × %d", l.Name, l.Rows, l.Cols, want.Rows, want.Cols)
	}
	kept := make(bits, l.Rows*l.Cols/8) // every width is a multiple of 8
	pruned := 0
	data := weightBytes(t, inv, l.Name)
	for k := range l.Rows * l.Cols {
		if data[2*k] != 0 || data[2*k+1] != 0 { // bfloat16
			kept[k/8] |= 1 << (k % 8)
		} else {
			pruned++
		}
	}
	if pruned != want.Pruned {
		t.Errorf("%s: %d pruned, want %d", l.Name, pruned, want.Pruned)
	}
	return kept
}

func weightBytes(t *testing.T, inv *checkpoint.Inventory, linear string) []byte {
	t.Helper()
	x, ok := inv.Tensor(linear + ".weight")
	if !ok {
		t.Fatalf("no Linear %s", linear)
	}
	data := make([]byte, x.Size)
	if err := inv.Read(x, data); err != nil {
		t.Fatal(err)
	}
	return data
}

// putRight decides the near ties of kept as PyTorch did and compares the mask with
// PyTorch's. It reports whether they were so before.
func (l goldenLinear) putRight(t *testing.T, kept bits) (same bool) {
	t.Helper()
	was := slices.Clone(kept)
	for _, k := range l.NearKept {
		kept[k/8] |= 1 << (k % 8)
	}
	for _, k := range l.NearPruned {
		kept[k/8] &^= 1 << (k % 8)
	}
	if sum := sha256.Sum256(kept); hex.EncodeToString(sum[:]) != l.SHA256 {
		var differ []int
		for i := range l.Rows {
			if byte(crc32.ChecksumIEEE(kept[i*l.Cols/8:(i+1)*l.Cols/8])) != l.RowCRC[i] {
				differ = append(differ, i)
			}
		}
		t.Fatalf("%s: the mask differs outside the near ties, in %d of %d rows: %v", l.Name, len(differ), l.Rows, differ)
	}
	return slices.Equal(kept, was)
}

// writePruned writes a Linear into the folder dir as PyTorch pruned it: as it was
// pruned here, but for the near ties.
func writePruned(t *testing.T, dir string, dense, out *checkpoint.Inventory, linear string, l goldenLinear) {
	t.Helper()
	data, was := weightBytes(t, out, linear), weightBytes(t, dense, linear)
	for _, k := range l.NearKept {
		copy(data[2*k:2*k+2], was[2*k:])
	}
	for _, k := range l.NearPruned {
		clear(data[2*k : 2*k+2])
	}
	x, _ := dense.Tensor(linear + ".weight")
	f, err := os.OpenFile(filepath.Join(dir, x.File), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(data, x.Offset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
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

// TestRunPerplexityEqualsPyTorch prunes as a user does and measures what was
// written. A near tie that goes the other way moves perplexity by less than
// 3e-4 (the goldens' README); a wrong mask, sum or order of work by more.
func TestRunPerplexityEqualsPyTorch(t *testing.T) {
	calibration, evaluation := goldenWindows(t, "calibration.safetensors"), goldenWindows(t, "evaluation.safetensors")
	for _, name := range []string{"magnitude-50", "wanda-2of4", "crepe-70"} {
		t.Run(name, func(t *testing.T) {
			want := readGolden(t, filepath.Join(goldenDir, name+".json"))
			inv, m := openDemo(t)
			rep, err := prune.Run(t.Context(), inv, m, prune.Options{
				Recipe: want.recipe(t), Output: filepath.Join(t.TempDir(), "out"), Calibration: calibration, Evaluation: evaluation,
			})
			if err != nil {
				t.Fatal(err)
			}
			if !(math.Abs(float64(rep.Dense.Perplexity)-want.Dense) <= 1e-5*want.Dense) {
				t.Errorf("dense perplexity %v, want %v", rep.Dense.Perplexity, want.Dense)
			}
			if !(math.Abs(float64(rep.Pruned.Perplexity)-want.PrunedPPL) <= 3e-4*want.PrunedPPL) {
				t.Errorf("pruned perplexity %v, want %v", rep.Pruned.Perplexity, want.PrunedPPL)
			}
		})
	}
}

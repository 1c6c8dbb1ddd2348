package prune_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

// The goldens of refinements: the README there describes them.
const refineDir = goldenDir + "/refine"

type goldenRefinement struct {
	Method, Pattern, Refine string
	Cycles                  int
	Linears                 []struct {
		goldenLinear
		Exchanges int
		NearRows  []int `json:"near_rows"`
	}
}

// TestRefinedMasksEqualNumPy refines every Linear of the demo model by the
// goldens' own statistics, so that nothing but the refinement is compared.
func TestRefinedMasksEqualNumPy(t *testing.T) {
	paths, err := filepath.Glob(refineDir + "/*.json")
	if want := 9 * len(refine.Methods()); err != nil || len(paths) != want {
		t.Fatalf("%d files in %s (%v), want %d", len(paths), refineDir, err, want)
	}
	seen := golden.Read(t, refineDir+"/stats.safetensors")
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			var c goldenRefinement
			data, err := os.ReadFile(path)
			if err == nil {
				err = json.Unmarshal(data, &c)
			}
			if err != nil {
				t.Fatal(err)
			}
			at := 0
			_, m := openDemo(t)
			for b := range m.Blocks() {
				block, err := m.LoadBlock(b)
				if err != nil {
					t.Fatal(err)
				}
				for _, in := range block.Inputs() {
					s := goldenInput(seen, in)
					for _, l := range in.Linears {
						want := c.Linears[at]
						if at++; want.Name != l.Name {
							t.Fatalf("%s, want %s", l.Name, want.Name)
						}
						n, sum := refinedSum(t, c, l, s, want.goldenLinear, want.NearRows)
						if len(want.NearRows) == 0 && n != want.Exchanges || sum != want.SHA256 {
							t.Errorf("%s: %d exchanges, want %d; mask equal: %v", l.Name, n, want.Exchanges, sum == want.SHA256)
						}
					}
				}
				block.Release()
			}
			if at != len(c.Linears) || at == 0 {
				t.Errorf("%d Linears, want %d", at, len(c.Linears))
			}
		})
	}
}

func goldenInput(seen map[string]golden.Tensor, in *model.Input) *stats.Input {
	get := func(what string) []float64 {
		var v []float64
		for _, x := range seen[in.Name+"."+what].F32 {
			v = append(v, float64(x))
		}
		return v
	}
	return &stats.Input{ColSq: get("colsq"), ColSum: get("colsum"), ColVar: get("colvar")}
}

// refinedSum selects with near ties as in the golden and refines.
func refinedSum(t *testing.T, c goldenRefinement, l *model.Linear, s *stats.Input, want goldenLinear, skip []int) (exchanges int, sum string) {
	t.Helper()
	method, err := score.Lookup(c.Method)
	if err != nil {
		t.Fatal(err)
	}
	scores := make([]float32, l.Rows*l.Cols)
	if err := method.Score(scores, l.W, s, method.Defaults); err != nil {
		t.Fatal(err)
	}
	decided := slices.Clone(scores)
	for _, k := range want.NearKept {
		decided[k] = math.MaxFloat32
	}
	for _, k := range want.NearPruned {
		decided[k] = 0
	}
	target := goldenConfig{Pattern: c.Pattern, Group: method.Group.String()}.target(t)
	kept, err := mask.Select(decided, l.Rows, l.Cols, target)
	if err != nil {
		t.Fatal(err)
	}
	by, err := refine.Lookup(c.Refine)
	if err != nil {
		t.Fatal(err)
	}
	r := by.Run(refine.Problem{Kept: kept, W: l.W, Scores: scores, Input: s, Pattern: target.Pattern, Cycles: c.Cycles})
	if kept.Pruned() != want.Pruned {
		t.Errorf("%s: %d pruned, want %d", l.Name, kept.Pruned(), want.Pruned)
	}
	bits := make([]byte, l.Rows*l.Cols/8)
	for k := range l.Rows * l.Cols {
		if kept.Kept(k/l.Cols, k%l.Cols) && !slices.Contains(skip, k/l.Cols) {
			bits[k/8] |= 1 << (k % 8)
		}
	}
	digest := sha256.Sum256(bits)
	return r.Exchanges, hex.EncodeToString(digest[:])
}

// TestMomentsEqualPyTorch gathers in the dense model what the goldens hold.
// PyTorch's activations are float32 in another order of summation: some 1e-6 of
// a token's norm apart. A sum of T values of mean square q/T, q = ColSq, is then
// off by 1e-6·sqrt(T·q), a variance by 1e-6 of q/T; the bounds have ten times that.
func TestMomentsEqualPyTorch(t *testing.T) {
	seen := golden.Read(t, refineDir+"/stats.safetensors")
	ids := rows(golden.Read(t, goldenDir+"/calibration.safetensors")["input_ids"])
	_, m := openDemo(t)
	st := m.NewState()
	hidden := make([]tensor.Matrix, len(ids))
	for i := range ids {
		hidden[i] = tensor.NewMatrix(len(ids[i]), m.Width())
		if err := m.Embed(hidden[i], ids[i]); err != nil {
			t.Fatal(err)
		}
	}
	inputs := 0
	for b := range m.Blocks() {
		block, err := m.LoadBlock(b)
		if err != nil {
			t.Fatal(err)
		}
		acc := map[*model.Input]*stats.Accumulator{}
		for _, in := range block.Inputs() {
			acc[in] = stats.NewAccumulator(in.Linears[0].Cols).WithMoments()
		}
		for _, x := range hidden {
			if err := block.Observe(st, x, func(in *model.Input, x tensor.Matrix) { acc[in].Add(x) }); err != nil {
				t.Fatal(err)
			}
		}
		for _, in := range block.Inputs() {
			got, want := acc[in].Input(len(ids)), goldenInput(seen, in)
			inputs++
			if len(want.ColSum) != in.Linears[0].Cols {
				t.Fatalf("%s: %d sums, want %d", in.Name, len(want.ColSum), in.Linears[0].Cols)
			}
			tokens := float64(len(ids[0]))
			for j, q := range want.ColSq {
				if d := math.Abs(got.ColSum[j] - want.ColSum[j]); !(d <= 1e-5*math.Sqrt(tokens*q)) {
					t.Errorf("%s: ColSum[%d] = %v, want %v", in.Name, j, got.ColSum[j], want.ColSum[j])
				}
				if d := math.Abs(got.ColVar[j] - want.ColVar[j]); !(d <= 1e-5*q/tokens) {
					t.Errorf("%s: ColVar[%d] = %v, want %v", in.Name, j, got.ColVar[j], want.ColVar[j])
				}
			}
		}
		for _, x := range hidden {
			if err := block.Forward(st, x); err != nil {
				t.Fatal(err)
			}
		}
		block.Release()
	}
	if inputs != 24 {
		t.Errorf("%d inputs, want 24", inputs)
	}
}

// TestRefinedPerplexityEqualsNumPy refines as a user does, on the goldens' text.
// The perplexities are those of tools/oracle/refine.py run. A near tie that goes
// the other way in a row changes what follows in it, and in later blocks.
func TestRefinedPerplexityEqualsNumPy(t *testing.T) {
	read := func(name string) *windows.Set {
		tokens := rows(golden.Read(t, filepath.Join(goldenDir, name))["input_ids"])
		return &windows.Set{Source: name, Tokens: tokens, SeqLen: len(tokens[0])}
	}
	calibration, evaluation := read("calibration.safetensors"), read("evaluation.safetensors")
	for _, c := range []struct {
		r    recipe.Recipe
		want float64
	}{
		{recipe.Recipe{Method: "ria", Sparsity: "60%", Refine: "dsnot"}, 131.637609},
		{recipe.Recipe{Method: "wanda", Pattern: "2:4", Refine: "dsnot", RefineLayers: "all"}, 147.005174},
	} {
		t.Run(fmt.Sprintf("%s %s%s %s", c.r.Method, c.r.Sparsity, c.r.Pattern, c.r.Refine), func(t *testing.T) {
			inv, m := openDemo(t)
			rep, err := prune.Run(t.Context(), inv, m, prune.Options{
				Recipe: c.r, Output: filepath.Join(t.TempDir(), "out"), Calibration: calibration, Evaluation: evaluation,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := rep.Pruned.Perplexity; !(math.Abs(got-c.want) <= 2e-3*c.want) {
				t.Errorf("perplexity %v, want %v", got, c.want)
			}
		})
	}
}

// TestRefineLayers refines every fixture's attention, or all of it: the others'
// masks stay as they are without, and the report counts.
func TestRefineLayers(t *testing.T) {
	for _, name := range golden.Folders(t, fixturesDir) {
		t.Run(name, func(t *testing.T) {
			weights := func(r recipe.Recipe) (*prune.Report, map[string][]byte) {
				r.Method, r.Sparsity = "wanda", "60%"
				opt := fixtureOptions(t, name, r)
				opt.Evaluation = nil
				inv, m := openModel(t, filepath.Join(fixturesDir, name))
				rep, err := prune.Run(t.Context(), inv, m, opt)
				if err != nil {
					t.Fatal(err)
				}
				all := map[string][]byte{}
				eachLinear(t, opt.Output, func(l *model.Linear) { all[l.Name] = bytes.Clone(l.W.Bytes()) })
				return rep, all
			}
			_, was := weights(recipe.Recipe{})
			for _, layers := range []string{"attention", "all"} {
				rep, now := weights(recipe.Recipe{Refine: "dsnot", RefineLayers: layers})
				changed := 0
				for _, l := range rep.Linears {
					may := !l.Skipped && (layers == "all" || strings.Contains(l.Name, "_attn."))
					if may != (l.Refined != nil) && !strings.Contains(l.Name, ".experts.") {
						t.Errorf("%s: %s refined: %v", layers, l.Name, !may)
					}
					differs := !bytes.Equal(was[l.Name], now[l.Name])
					// What enters later Linears changes with those before.
					if differs && !may && strings.HasPrefix(l.Name, "model.layers.0.") && strings.Contains(l.Name, "mlp") {
						t.Errorf("%s: %s differs", layers, l.Name)
					}
					if differs && may {
						changed++
						if l.Refined.Exchanges == 0 && strings.Contains(l.Name, ".0.self_attn.") {
							t.Errorf("%s: %s differs after no exchange", layers, l.Name)
						}
					}
				}
				if changed == 0 {
					t.Errorf("%s: nothing was refined", layers)
				}
				if n, left, ok := rep.Refined(); !ok || n == 0 || !(left > 0) {
					t.Errorf("%s: refined %d, %v left (%v)", layers, n, left, ok)
				}
			}
		})
	}
}

// TestRefineInMemory refines in memory, after a recipe that gathered less: the
// masks are those that a run writes.
func TestRefineInMemory(t *testing.T) {
	opt := options(t.TempDir())
	opt.Evaluation = nil
	_, m := openDemo(t)
	p := prune.NewInMemory(m, opt.Calibration)
	nothing := func(model.Block) error { return nil }
	if _, err := p.Prune(t.Context(), "plain", opt.Recipe, nothing); err != nil {
		t.Fatal(err)
	}
	for _, name := range refine.Names() {
		opt.Recipe.Refine, opt.Recipe.RefineLayers, opt.Overwrite = name, "all", true
		for range 2 {
			masks, err := p.Prune(t.Context(), name, opt.Recipe, nothing)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := run(t, t.Context(), opt); err != nil {
				t.Fatal(err)
			}
			eachLinear(t, opt.Output, func(l *model.Linear) {
				k := masks[l.Name][0]
				for i := range l.Rows {
					row := make([]float32, l.Cols)
					l.W.Row(row, i)
					for j, v := range row {
						if v != 0 && !k.Kept(i, j) {
							t.Fatalf("%s, %s: [%d, %d] is kept, but not in memory", name, l.Name, i, j)
						}
					}
				}
			})
		}
	}
}

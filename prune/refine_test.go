package prune_test

import (
	"bytes"
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

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
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
	Linears                 []refinedLinear
}

type refinedLinear struct {
	goldenLinear
	refine.Result
	NearRows []int `json:"near_rows"`
}

// TestRefinedMasksEqualNumPy refines every Linear of the demo model by the
// goldens' own statistics, so that nothing but the refinement is compared.
func TestRefinedMasksEqualNumPy(t *testing.T) {
	paths := refineGoldens(t, "dsnot", 9)
	seen := golden.Read(t, refineDir+"/stats.safetensors")
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			c := readRefinement(t, path)
			at := 0
			_, m := openDemo(t)
			for b := range m.Blocks() {
				block, err := m.LoadBlock(b)
				if err != nil {
					t.Fatal(err)
				}
				for _, in := range block.Inputs() {
					s := goldenInput(seen, in.Name)
					for _, l := range in.Linears {
						want := c.Linears[at]
						if at++; want.Name != l.Name {
							t.Fatalf("%s, want %s", l.Name, want.Name)
						}
						kept, r := refinedMask(t, c, l, s, nil, want.goldenLinear)
						same := maskSum(kept, want.NearRows) == want.SHA256
						if len(want.NearRows) == 0 && r.Exchanges != want.Exchanges || kept.Pruned() != want.Pruned || !same {
							t.Errorf("%s: %d pruned, %d exchanges, want %d, %d; mask equal: %v", l.Name, kept.Pruned(), r.Exchanges, want.Pruned, want.Exchanges, same)
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

func refineGoldens(t *testing.T, method string, want int) []string {
	t.Helper()
	paths, err := filepath.Glob(refineDir + "/" + method + "-*.json")
	if err != nil || len(paths) != want {
		t.Fatalf("%d files of %s in %s (%v), want %d", len(paths), method, refineDir, err, want)
	}
	return paths
}

func readRefinement(t *testing.T, path string) goldenRefinement {
	t.Helper()
	var c goldenRefinement
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSwapsEqualNumPy refines Linears of the demo model by their Gram matrices
// here, which differ from the goldens' in their last bits: of two exchanges that
// are that close another may be made, and the row goes another way. Nearly all
// rows must be the same, and so must the error that is left, but for those.
func TestSwapsEqualNumPy(t *testing.T) {
	wants := map[string]goldenRefinement{}
	for _, path := range refineGoldens(t, "swaps", 5) {
		wants[path] = readRefinement(t, path)
	}
	seen := golden.Read(t, refineDir+"/stats.safetensors")
	ids := rows(golden.Read(t, goldenDir+"/calibration.safetensors")["input_ids"])
	compared, differ := 0, 0
	eachDenseGram(t, ids, func(l *model.Linear, g *stats.Gram) {
		var gram *refine.Gram
		for path, c := range wants {
			i := slices.IndexFunc(c.Linears, func(x refinedLinear) bool { return x.Name == l.Name })
			if i < 0 {
				continue
			}
			if gram == nil {
				gram = refine.NewGram(g)
			}
			want := c.Linears[i]
			kept, r := refinedMask(t, c, l, goldenInput(seen, inputOf(l)), gram, want.goldenLinear)
			rowsDiffer := 0
			for row := range l.Rows {
				bits := make([]byte, l.Cols/8)
				for j := range l.Cols {
					if kept.Kept(row, j) {
						bits[j/8] |= 1 << (j % 8)
					}
				}
				if byte(crc32.ChecksumIEEE(bits)) != want.RowCRC[row] {
					rowsDiffer++
				}
			}
			compared, differ = compared+l.Rows, differ+rowsDiffer
			if rowsDiffer*50 > l.Rows {
				t.Errorf("%s: %s: %d of %d rows differ", path, l.Name, rowsDiffer, l.Rows)
			}
			// A row that goes another way ends elsewhere, by a fraction of its own error.
			after := (1e-4 + 0.2*float64(rowsDiffer)/float64(l.Rows)) * want.After
			if !(math.Abs(r.Before-want.Before) <= 1e-5*want.Before) || !(math.Abs(r.After-want.After) <= after) {
				t.Errorf("%s: %s: error %v to %v, want %v to %v", path, l.Name, r.Before, r.After, want.Before, want.After)
			}
			if kept.Pruned() != want.Pruned || math.Abs(float64(r.Exchanges-want.Exchanges)) > 1e-2*float64(want.Exchanges) {
				t.Errorf("%s: %s: %d pruned, %d exchanges, want %d, %d", path, l.Name, kept.Pruned(), r.Exchanges, want.Pruned, want.Exchanges)
			}
		}
	})
	if compared == 0 {
		t.Error("nothing was compared")
	}
	t.Logf("%d of %d rows differ", differ, compared)
}

// inputOf returns the name of the input of the demo model that l reads.
func inputOf(l *model.Linear) string {
	name := l.Name
	for from, to := range map[string]string{"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"} {
		name = strings.Replace(name, from, to, 1)
	}
	return name
}

func goldenInput(seen map[string]golden.Tensor, input string) *stats.Input {
	get := func(what string) []float64 {
		var v []float64
		for _, x := range seen[input+"."+what].F32 {
			v = append(v, float64(x))
		}
		return v
	}
	return &stats.Input{ColSq: get("colsq"), ColSum: get("colsum"), ColVar: get("colvar")}
}

// refinedMask selects with near ties as in the golden and refines.
func refinedMask(t *testing.T, c goldenRefinement, l *model.Linear, s *stats.Input, gram *refine.Gram, want goldenLinear) (*mask.Mask, refine.Result) {
	t.Helper()
	method, err := score.Lookup(c.Method)
	if err != nil {
		t.Fatal(err)
	}
	scores := make([]float32, l.Rows*l.Cols)
	params, group := method.Defaults(), method.Group
	if c.Method == score.CRePE.Name {
		params, group = score.Paper(), pattern.Matrix
	}
	if err := method.Score(scores, weightOf(t, l), s, params); err != nil {
		t.Fatal(err)
	}
	decided := slices.Clone(scores)
	for _, k := range want.NearKept {
		decided[k] = math.MaxFloat32
	}
	for _, k := range want.NearPruned {
		decided[k] = 0
	}
	target := goldenConfig{Pattern: c.Pattern, Group: group.String()}.target(t)
	kept, err := mask.Select(decided, l.Rows, l.Cols, target)
	if err != nil {
		t.Fatal(err)
	}
	by, err := refine.Lookup(c.Refine)
	if err != nil {
		t.Fatal(err)
	}
	r, err := by.Run(t.Context(), refine.Problem{
		Kept: kept, W: weightOf(t, l), Scores: scores, Input: s, Gram: gram, Pattern: target.Pattern, Params: param.Values{"refine_cycles": c.Cycles},
	})
	if err != nil {
		t.Fatal(err)
	}
	return kept, r
}

// maskSum is the digest of kept's bits; those of the rows skip count as 0.
func maskSum(kept *mask.Mask, skip []int) string {
	bits := make([]byte, kept.Rows*kept.Cols/8)
	for k := range kept.Rows * kept.Cols {
		if kept.Kept(k/kept.Cols, k%kept.Cols) && !slices.Contains(skip, k/kept.Cols) {
			bits[k/8] |= 1 << (k % 8)
		}
	}
	digest := sha256.Sum256(bits)
	return hex.EncodeToString(digest[:])
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
	hidden := make([]engine.Mat, len(ids))
	for i := range ids {
		hidden[i] = m.NewMat(len(ids[i]))
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
		acc := map[*model.Input]engine.Stats{}
		for _, in := range block.Inputs() {
			acc[in] = m.Engine().NewStats(in.Linears[0].Cols, stats.Needs{Moments: true})
		}
		for _, x := range hidden {
			if err := block.Run(st, x, model.Mode{Tap: func(in *model.Input, x engine.Mat) { acc[in].Add(x) }, Keep: true}); err != nil {
				t.Fatal(err)
			}
		}
		for _, in := range block.Inputs() {
			got, want := acc[in].Input(len(ids)), goldenInput(seen, in.Name)
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
			if err := block.Run(st, x, model.Mode{}); err != nil {
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
// The perplexities are those of tools/oracle_refine.py run. A near tie that goes
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
		{recipe.Recipe{Method: "wanda", Pattern: "2:4", Refine: "dsnot", Params: param.Values{"refine_layers": "all"}}, 147.005174},
	} {
		t.Run(fmt.Sprintf("%s %s%s %s", c.r.Method, c.r.Sparsity, c.r.Pattern, c.r.Refine), func(t *testing.T) {
			inv, m := openDemo(t)
			rep, err := prune.Run(t.Context(), inv, m, prune.Options{
				Recipe: c.r, Output: filepath.Join(t.TempDir(), "out"), Calibration: calibration, Evaluation: evaluation,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := float64(rep.Pruned.Perplexity); !(math.Abs(got-c.want) <= 2e-3*c.want) {
				t.Errorf("perplexity %v, want %v", got, c.want)
			}
		})
	}
}

// TestRefineLayers refines every fixture's attention, or all of it: the others'
// masks stay as they are without, and the report counts.
func TestRefineLayers(t *testing.T) {
	for _, name := range classes(t) {
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
				eachLinear(t, opt.Output, func(l *model.Linear) { all[l.Name] = bytes.Clone(weightOf(t, l).Bytes()) })
				return rep, all
			}
			_, was := weights(recipe.Recipe{})
			for method, layers := range map[string]string{"dsnot": "attention", "swaps": "all"} { // their own
				rep, now := weights(recipe.Recipe{Refine: method})
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
	const fixture = "llama3-gqa"
	opt := fixtureOptions(t, fixture, recipe.Recipe{Method: "crepe"})
	opt.Evaluation = nil
	_, m := openModel(t, filepath.Join(fixturesDir, fixture))
	p := prune.NewInMemory(m, opt.Calibration)
	nothing := func(*model.Block) error { return nil }
	if _, err := p.Prune(t.Context(), "plain", opt.Recipe, nothing); err != nil {
		t.Fatal(err)
	}
	for _, name := range refine.Names() {
		opt.Recipe.Refine, opt.Recipe.Params, opt.Overwrite = name, param.Values{"refine_layers": "all", "refine_cycles": 4}, true
		if _, err := runFixture(t, t.Context(), fixture, opt); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			masks, err := p.Prune(t.Context(), name, opt.Recipe, nothing)
			if err != nil {
				t.Fatal(err)
			}
			eachLinear(t, opt.Output, func(l *model.Linear) {
				k := masks[l.Name][0]
				for i := range l.Rows {
					row := make([]float32, l.Cols)
					weightOf(t, l).Row(row, i)
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

// TestRefineThenUpdate: an update keeps the refined mask, which in the first
// block is that of a run without it, and changes only what is kept.
func TestRefineThenUpdate(t *testing.T) {
	const fixture = "llama3-gqa"
	opt := fixtureOptions(t, fixture, recipe.Recipe{})
	opt.Calibration, opt.Evaluation = tokensBelow(320, 8, 60, 7), nil // more tokens than a Linear has columns
	weights := func(update, refinement, layers string) map[string]*tensor.Weight {
		opt.Recipe = recipe.Recipe{Method: "wanda", Pattern: "2:4", Refine: refinement, Params: param.Values{"refine_layers": layers}, Update: update}
		if update != "" {
			opt.Recipe = own(opt.Recipe)
		}
		opt.Overwrite = true
		if _, err := runFixture(t, t.Context(), fixture, opt); err != nil {
			t.Fatal(err)
		}
		all := map[string]*tensor.Weight{}
		eachLinear(t, opt.Output, func(l *model.Linear) {
			if strings.HasPrefix(l.Name, "model.layers.0.") {
				w := tensor.NewWeight(weightOf(t, l).DType, l.Rows, l.Cols)
				copy(w.Bytes(), weightOf(t, l).Bytes())
				all[l.Name] = w
			}
		})
		return all
	}
	plain := weights("", "", "")
	for _, layers := range []string{"attention", "all"} {
		was, now := weights("", "swaps", layers), weights("sparsegpt", "swaps", layers)
		for name, w := range was {
			a, b, c := make([]float32, w.Cols), make([]float32, w.Cols), make([]float32, w.Cols)
			changed, refined := 0, 0
			for i := range w.Rows {
				w.Row(a, i)
				now[name].Row(b, i)
				plain[name].Row(c, i)
				for j := range a {
					if (a[j] == 0) != (b[j] == 0) {
						t.Fatalf("%s: [%d, %d] is %v refined and %v updated", name, i, j, a[j], b[j])
					}
					if a[j] != b[j] {
						changed++
					}
					if (a[j] == 0) != (c[j] == 0) {
						refined++
					}
				}
			}
			if changed == 0 || (refined > 0) != (layers == "all" || strings.Contains(name, "self_attn")) {
				t.Errorf("%s, %s: %d weights updated, %d refined", layers, name, changed, refined)
			}
		}
	}
}

// TestRefinementMemory: what the plan counts for a refinement, and that a budget
// below it is refused.
func TestRefinementMemory(t *testing.T) {
	inv, m := openDemo(t)
	plan := func(r recipe.Recipe, memory int64) (*prune.Plan, error) {
		opt := options(t.TempDir())
		opt.Recipe, opt.Memory = r, memory
		return prune.MakePlan(inv, m, opt)
	}
	get := func(r recipe.Recipe) prune.Memory {
		p, err := plan(r, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		return p.Memory
	}
	none, dsnot := get(recipe.Recipe{}), get(recipe.Recipe{Refine: "dsnot"})
	if none.Gram != 0 || none.Refine != 0 || dsnot.Gram != 0 || dsnot.Refine < 8*2*2*256 {
		t.Errorf("%+v without, %+v with dsnot", none, dsnot)
	}
	all, attention := get(recipe.Recipe{Refine: "swaps"}), get(recipe.Recipe{Refine: "swaps", Params: param.Values{"refine_layers": "attention"}})
	// Gram matrices of three inputs of 256 channels and one of 688, and a copy.
	if all.Gram < 4*(3*256*256+2*688*688) || attention.Gram < 4*3*256*256 || attention.Gram >= all.Gram {
		t.Errorf("Gram %d for all, %d for the attention", all.Gram, attention.Gram)
	}
	// down_proj is alone with its input: its copy is gone before the update.
	if both := get(own(recipe.Recipe{Refine: "swaps", Update: "sparsegpt"})); both.Gram >= all.Gram+4*688*688 {
		t.Errorf("Gram %d with an update, %d without", both.Gram, all.Gram)
	}
	_, err := plan(recipe.Recipe{Refine: "swaps"}, none.Total())
	if !errors.Is(err, prune.ErrMemory) {
		t.Errorf("a budget without room for Gram matrices: %v", err)
	}
}

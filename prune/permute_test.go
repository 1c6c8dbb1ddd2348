package prune_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tensor"
)

// permutedRecipes are permutations with every kind of method: a score, one
// without data, fused matrices split, an update of the mask, one that selects.
var permutedRecipes = map[string]recipe.Recipe{
	"cp wanda 2:4":           {Method: "wanda", Permute: "cp", Pattern: "2:4"},
	"lsa magnitude 4:8":      {Method: "magnitude", Permute: "lsa", Pattern: "4:8", Fused: "split"},
	"lsa crepe 2:4, updated": {Method: "crepe", Permute: "lsa", Params: param.Values{"lsa_fast": true}, Pattern: "2:4", Update: "sparsegpt"},
	"lsa sparsegpt 2:4":      {Method: "sparsegpt", Permute: "lsa", Pattern: "2:4"},
}

// TestFixturesPermute permutes every fixture in several ways. N:M holds in the
// order that the manifest records, part by part; W in it times the input in it is
// W times the input; and no retained score fell.
func TestFixturesPermute(t *testing.T) {
	for _, name := range classes(t) {
		for what, r := range permutedRecipes {
			t.Run(name+"/"+what, func(t *testing.T) {
				opt := fixtureOptions(t, name, r)
				opt.Evaluation = nil
				inv, m := openModel(t, filepath.Join(fixturesDir, name))
				if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
					t.Fatal(err)
				}
				manifest, err := prune.ReadManifest(opt.Output)
				if err != nil {
					t.Fatal(err)
				}
				p, err := pattern.ParsePattern(r.Pattern)
				if err != nil {
					t.Fatal(err)
				}
				checkPermuted(t, opt.Output, manifest, p)
			})
		}
	}
}

func checkPermuted(t *testing.T, dir string, manifest *prune.Manifest, p pattern.Pattern) {
	t.Helper()
	linears := map[string]prune.LinearReport{}
	for _, l := range manifest.Linears {
		linears[l.Name] = l
	}
	moved, elsewhere := 0, 0
	eachLinear(t, dir, func(l *model.Linear) {
		if linears[l.Name].Skipped {
			return
		}
		rows := 0
		for _, part := range linears[l.Name].Permuted {
			w := part.Take(weightOf(t, l))
			rows += w.Rows
			if !mask.HoldsNMIn(w, p, part.Order) {
				t.Errorf("%s %s does not hold %v in the order that is recorded", l.Name, part.Part, p)
			}
			if part.After < part.Before || part.Before <= 0 || (part.Order == nil) != (part.After == part.Before) {
				t.Errorf("%s %s: %v retained without an order, %v with it", l.Name, part.Part, part.Before, part.After)
			}
			if part.Order != nil {
				moved++
				sameProducts(t, w, part.Order)
				if !mask.HoldsNM(w, p) {
					elsewhere++
				}
			}
		}
		if rows != l.Rows {
			t.Errorf("%s: orders of %d rows, want %d", l.Name, rows, l.Rows)
		}
	})
	if moved == 0 || elsewhere == 0 {
		t.Errorf("%d parts were moved, %d of them hold %v in their order only: want some", moved, elsewhere, p)
	}
}

// sameProducts compares w's products with an input to those of w stored in
// order with the input in order: the same terms, added in another order.
func sameProducts(t *testing.T, w *tensor.Weight, order []int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 0))
	x, row := make([]float64, w.Cols), make([]float32, w.Cols)
	for j := range x {
		x[j] = rng.NormFloat64()
	}
	for i := range w.Rows {
		w.Row(row, i)
		plain, permuted, size := 0.0, 0.0, 0.0
		for j, v := range row {
			plain += float64(v) * x[j]
			size += math.Abs(float64(v) * x[j])
		}
		for _, j := range order {
			permuted += float64(row[j]) * x[j]
		}
		if !(math.Abs(plain-permuted) <= float64(w.Cols)*0x1p-51*size) {
			t.Fatalf("row %d: %v, in order %v", i, plain, permuted)
		}
	}
}

// TestPermutationResumes interrupts a run and compares the bytes, those of
// crepe.json with the orders among them.
func TestPermutationResumes(t *testing.T) {
	const fixture = "llama3-gqa"
	opt := fixtureOptions(t, fixture, recipe.Recipe{Method: "crepe", Pattern: "2:4", Permute: "lsa"})
	opt.Evaluation = nil
	points := interrupted(t, fixture, opt, 0)
	want := content(t, opt.Output)
	for stop := 2; stop < points; stop += 9 {
		opt.Output = filepath.Join(t.TempDir(), "out")
		interrupted(t, fixture, opt, stop)
		compare(t, "resumed", content(t, opt.Output), want)
	}
}

// TestMasksKeepTheirOrder: masks that were made in memory write the same weights
// as a whole run, with the same orders.
func TestMasksKeepTheirOrder(t *testing.T) {
	opt := options(t.TempDir())
	opt.Recipe.Pattern, opt.Recipe.Permute = "2:4", "cp"
	whole, err := run(t, t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	_, m := openDemo(t)
	masks, err := prune.NewInMemory(m, opt.Calibration).Prune(t.Context(), "prune", opt.Recipe, func(*model.Block) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	written := opt
	written.Output, written.Masks = filepath.Join(t.TempDir(), "out"), masks
	rep, err := run(t, t.Context(), written)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range rep.Linears {
		for k, p := range whole.Linears[i].Permuted {
			if p.Order != nil && (k >= len(l.Permuted) || !slices.Equal(l.Permuted[k].Order, p.Order)) {
				t.Errorf("%s: its order is not that of the whole run", l.Name)
			}
		}
	}
	a, b := content(t, opt.Output), content(t, written.Output)
	for name := range a {
		if filepath.Ext(name) == ".safetensors" && !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestOrderInJSON(t *testing.T) {
	for _, n := range []int{0, 1, 300, 1 << 16, 1<<16 + 5} {
		want := prune.Order(rand.New(rand.NewPCG(1, 0)).Perm(n))
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got prune.Order
		if err := json.Unmarshal(text, &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d columns: read as %d (%v)", n, len(got), err)
		}
	}
	var o prune.Order
	if err := json.Unmarshal([]byte(`"no base64"`), &o); err == nil {
		t.Error("no base64: no error")
	}
}

// The fast form of an assignment goes by what a Linear does in its block, not by
// its name: the last of the attention or of a feed-forward network is told apart.
func TestOutputsOfBlocks(t *testing.T) {
	last := []string{"o_proj", "out_proj", "down_proj", "w2"}
	for _, name := range classes(t) {
		found := 0
		eachLinear(t, filepath.Join(fixturesDir, name), func(l *model.Linear) {
			want := slices.Contains(last, l.Name[strings.LastIndexByte(l.Name, '.')+1:])
			if l.Output != want {
				t.Errorf("%s: %s is the output of its network: %v, want %v", name, l.Name, l.Output, want)
			}
			if want {
				found++
			}
		})
		if found == 0 {
			t.Errorf("%s: no Linear is an output", name)
		}
	}
}

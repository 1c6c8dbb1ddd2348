package prune_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tensor"
)

// What the run measures of the Linears of block 0 is what their inputs and the
// written weights say, computed here once more in float64.
func TestMeasures(t *testing.T) {
	for _, r := range []recipe.Recipe{
		{Method: "crepe"}, {Method: "wanda", Pattern: "2:4", Fused: "split"}, {Method: "ria", Refine: "dsnot"},
		{Method: "sparsegpt", Sparsity: "60%"}, {Method: "wanda", Update: "sparsegpt"}, {Method: "magnitude"},
	} {
		t.Run(r.Spec(), func(t *testing.T) {
			opt := options(t.TempDir())
			r.Calibration, r.Eval = opt.Recipe.Calibration, recipe.Eval{Source: "none"}
			opt.Recipe, opt.Evaluation = r, nil
			opt.Calibration = tokens(4, 200, 7)
			rep, err := run(t, t.Context(), opt)
			if err != nil {
				t.Fatal(err)
			}
			ms, err := prune.ReadMeasures(opt.Output)
			if err != nil {
				t.Fatal(err)
			}
			man, err := prune.ReadManifest(opt.Output)
			if err != nil || ms.Provenance != man.Provenance || len(ms.Linears) != len(rep.Linears) {
				t.Fatalf("%d Linears of %s, want %d of %s (%v)", len(ms.Linears), ms.Provenance, len(rep.Linears), man.Provenance, err)
			}
			updates := r.Method == "sparsegpt" || r.Update != ""
			selects, data := r.Method == "sparsegpt", r.Method != "magnitude"
			inputs := firstInputs(t, opt)
			for i, l := range ms.Linears {
				if l.Name != rep.Linears[i].Name || (len(l.Scores) == 0) != selects || (l.Output == nil) == data {
					t.Fatalf("%s: %d scores, output %v", l.Name, len(l.Scores), l.Output)
				}
				if !selects && sumOf(l.Scores[0].Kept)+sumOf(l.Scores[0].Pruned) != rep.Linears[i].Rows*rep.Linears[i].Cols {
					t.Errorf("%s: %d weights kept, %d pruned, want all", l.Name, sumOf(l.Scores[0].Kept), sumOf(l.Scores[0].Pruned))
				}
				// An update works in order: what comes later in the block is calibrated on
				// what is pruned already, which is not computed here.
				kind := l.Name[strings.LastIndexByte(l.Name, '.')+1:]
				if x := inputs[l.Name]; x != nil && (!updates || slices.Contains([]string{"q_proj", "k_proj", "v_proj"}, kind)) {
					checkMeasure(t, opt, l, x, data)
				}
			}
			if rec, err := prune.ReadRecord(opt.Output); err != nil || rec.Provenance != man.Provenance || rec.Model != opt.Model || rec.Seconds != rep.Seconds {
				t.Errorf("record %+v (%v), want that of %+v", rec, err, rep)
			}
		})
	}
}

func sumOf(x []int) (n int) {
	for _, v := range x {
		n += v
	}
	return n
}

// firstInputs returns what enters the Linears of block 0, token after token.
func firstInputs(t *testing.T, opt prune.Options) map[string][][]float32 {
	t.Helper()
	_, m := openDemo(t)
	block, err := m.LoadBlock(0)
	if err != nil {
		t.Fatal(err)
	}
	defer block.Release()
	seen := map[string][][]float32{}
	tap := func(in *model.Input, x engine.Mat) {
		all := tensor.NewMatrix(x.Rows, x.Cols)
		m.Engine().Download(all, x)
		for _, l := range in.Linears {
			for i := range x.Rows {
				seen[l.Name] = append(seen[l.Name], all.Row(i))
			}
		}
	}
	for _, ids := range opt.Calibration.Tokens {
		x := m.NewMat(len(ids))
		if err := m.Embed(x, ids); err != nil {
			t.Fatal(err)
		}
		if err := block.Run(m.NewState(), x, model.Mode{Tap: tap, Keep: true}); err != nil {
			t.Fatal(err)
		}
	}
	return seen
}

// readLinear returns a weight of block 0 as a checkpoint has it.
func readLinear(t *testing.T, inv *checkpoint.Inventory, name string) [][]float64 {
	t.Helper()
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	block, err := m.LoadBlock(0)
	if err != nil {
		t.Fatal(err)
	}
	defer block.Release()
	for _, l := range block.Linears() {
		if l.Name != name {
			continue
		}
		w, err := l.Read()
		if err != nil {
			t.Fatal(err)
		}
		out, row := make([][]float64, w.Rows), make([]float32, w.Cols)
		for i := range out {
			w.Row(row, i)
			for _, v := range row {
				out[i] = append(out[i], float64(v))
			}
		}
		return out
	}
	t.Fatalf("no %s in block 0", name)
	return nil
}

func checkMeasure(t *testing.T, opt prune.Options, l prune.LinearMeasure, x [][]float32, data bool) {
	t.Helper()
	dense, _ := openDemo(t)
	pruned, err := checkpoint.Open(opt.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer pruned.Close()
	w, v := readLinear(t, dense, l.Name), readLinear(t, pruned, l.Name)
	colSq := make([]float64, len(x[0]))
	for j := range colSq {
		if colSq[j] = 1; data {
			colSq[j] = 0
			for _, row := range x {
				colSq[j] += float64(row[j]) * float64(row[j])
			}
		}
	}
	lost, all := 0.0, 0.0
	for i := range w {
		for j := range w[i] {
			e := w[i][j] * w[i][j] * colSq[j]
			all += e
			if v[i][j] == 0 {
				lost += e
			}
		}
	}
	if want := lost / all; l.EnergyLost == nil || !(math.Abs(*l.EnergyLost-want) <= 1e-6) {
		t.Errorf("%s: energy lost %v, want %v", l.Name, l.EnergyLost, want)
	}
	if !data {
		return
	}
	const stride = 255
	diff, norm, n := 0.0, 0.0, 0
	for at := 0; at < len(x); at += stride {
		n++
		for i := range w {
			y, z := 0.0, 0.0
			for j, u := range x[at] {
				y += w[i][j] * float64(u)
				z += v[i][j] * float64(u)
			}
			diff += (y - z) * (y - z)
			norm += y * y
		}
	}
	// Products in float32 of sums of up to 688 terms, and their differences.
	if want := math.Sqrt(diff / norm); l.Output.Tokens != n || !(math.Abs(l.Output.Relative-want) <= 1e-4*want) {
		t.Errorf("%s: output error %+v, want %v of %d tokens", l.Name, l.Output, want, n)
	}
}

// The measures of a run belong to its output alone: another run carries none over,
// and a folder without them says so.
func TestMeasuresAreNotCarriedOver(t *testing.T) {
	opt := options(t.TempDir())
	opt.Evaluation, opt.Recipe.Eval.Source = nil, "none"
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	inv, err := checkpoint.Open(opt.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	for _, a := range inv.Aux() {
		if a.Path == prune.MeasuresName {
			t.Errorf("%s would go to the next output", a.Path)
		}
	}
	if err := os.Remove(filepath.Join(opt.Output, prune.MeasuresName)); err != nil {
		t.Fatal(err)
	}
	if _, err := prune.ReadMeasures(opt.Output); !os.IsNotExist(err) {
		t.Errorf("%v, want that it does not exist", err)
	}
}

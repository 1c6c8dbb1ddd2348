package live_test

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/grid"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/report"
)

var kinds = []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}

// sampleRun is a run of a model of so many blocks with made-up numbers.
func sampleRun(name string, blocks int, shift float64) report.Item {
	m := &prune.Manifest{
		Crepe: "0", Engine: "cpu/avx2", Provenance: name, Recipe: recipe.Recipe{Method: "wanda", Sparsity: "50%", Allocate: "owl"},
		Sparsity:   prune.Sparsity{Target: 0.5, Measured: 0.4999},
		Evaluation: &prune.Text{Source: "text", Windows: 9, SeqLen: 64},
		Dense:      &eval.Result{Perplexity: 20.5, Windows: 9, SeqLen: 64, Stderr: 0.25},
		Pruned:     &eval.Result{Perplexity: eval.Number(25.25 + shift), Windows: 9, SeqLen: 64, Stderr: 0.5},
		Diverged:   &eval.Divergence{KL: eval.Spread{Mean: 0.0625 + shift/100}, SameTop: 0.78, Positions: 567},
		Allocation: &prune.Allocation{Method: "owl"},
		Inputs:     map[string]string{"model.safetensors": "ab12"}, Files: map[string]string{"model.safetensors": "cd34"},
	}
	ms := &prune.Measures{Version: 1, Provenance: name}
	for b := range blocks {
		m.Allocation.Blocks = append(m.Allocation.Blocks, allocate.Block{Weights: 100, Measure: 0.01 * float64(b+1), Sparsity: 0.45 + 0.01*float64(b)})
		for k, kind := range kinds {
			l := fmt.Sprintf("model.layers.%d.%s", b, kind)
			lost := 0.01*float64(k+1) + 0.001*float64(b) + shift/1000
			m.Linears = append(m.Linears, prune.LinearReport{Name: l, Rows: 10, Cols: 20, Sparsity: 0.5, Zeros: 100})
			ms.Linears = append(ms.Linears, prune.LinearMeasure{
				Name: l, Output: &prune.OutputError{Relative: math.Sqrt(lost), Tokens: 512}, EnergyLost: &lost,
				Scores: []prune.Scores{sampleScores(b*len(kinds) + k)},
			})
		}
	}
	return report.Item{Name: name, Path: name, Run: &report.Run{
		Manifest: m, Measures: ms, Bytes: 123456789,
		Record: &prune.Record{Model: "model of " + name, Seconds: prune.Seconds{Load: 0.5, Calibrate: 12.25, Write: 1, Eval: 3, Total: 17}, PeakRSS: 1e9},
	}}
}

// sampleScores has as many bins and points as a real one, of as many digits.
func sampleScores(n int) prune.Scores {
	s := prune.Scores{Gini: 0.3456, Threshold: &prune.Threshold{Group: "row", Low: 0.1, Median: 0.2, High: 0.3}}
	for i := range prune.MaxBins {
		s.Edges = append(s.Edges, float32(0.00012345*math.Pow(1.15, float64(i))))
		s.Kept, s.Pruned = append(s.Kept, 1000*i+n), append(s.Pruned, 1000*(prune.MaxBins-i)+n)
		x := float64(i) / prune.MaxBins
		s.Lorenz = append(s.Lorenz, [2]float64{math.Round(x*1e6) / 1e6, math.Round(x*x*1e6) / 1e6})
	}
	s.Edges = append(s.Edges, 2)
	s.Lorenz = append(s.Lorenz, [2]float64{1, 1})
	return s
}

// sampleItems has an item of each kind.
func sampleItems() []report.Item {
	three, e := 3, 0.02
	study := &pho.History{}
	for i := range 12 {
		v := float64(i)
		study.Configs = append(study.Configs, pho.Config{
			Coefficients: pho.At(v/12, 0.5, 9), Perplexity: eval.Number(20 + v*v), NLL: math.Log(20 + v*v),
			Proxies: pho.Proxies{OutliersAll: v / 100, OutliersRetained: v * v / 100, GiniRetained: 0.3 + v/50, GiniPruned: 0.5 - v/50},
		})
	}
	study.Proxies = pho.Correlate(study.Configs)
	var cells []grid.SavedCell
	cells = append(cells, grid.SavedCell{Model: "m", Method: grid.Dense, Result: eval.Result{Perplexity: 10, Windows: 4}})
	for i, method := range []string{"magnitude", "wanda", "crepe+sparsegpt"} {
		for k, p := range []string{"2:4", "50%", "60%"} {
			cells = append(cells, grid.SavedCell{
				Model: "m", Method: method, Pattern: p, Sparsity: 0.5, Seconds: 3,
				Result: eval.Result{Perplexity: eval.Number(12 + float64(k*k) - 0.3*float64(i)), Windows: 4, Stderr: 0.2},
				Tasks:  []task.Result{{Task: "rte", Documents: 100, Acc: 0.5 + 0.01*float64(i), AccStderr: &e, AccNorm: 0.5, AccNormStderr: &e}},
			})
		}
	}
	table := &grid.Report{Methods: []string{"ria"}, Patterns: []string{"50%", "3:7"}, Models: []grid.ModelReport{{
		Model: "t", Dense: grid.Cell{Method: grid.Dense, Perplexity: &eval.Result{Perplexity: 5}},
		Cells: []grid.Cell{{Method: "ria", Pattern: "50%", Perplexity: &eval.Result{Perplexity: 6.5}}, {Method: "ria", Pattern: "3:7", Refused: "256 columns"}},
	}}}
	return []report.Item{
		sampleRun("first run", 4, 0), sampleRun("second run", 4, 2),
		{Name: "search", History: sampleSearch(pho.Perplexity), Pattern: "50%"}, {Name: "search by a proxy", History: sampleSearch(pho.GiniPruned), Pattern: "2:4"}, {Name: "study", History: study}, {Name: "grid", Grid: cells}, {Name: "table", Table: table},
		{Name: "evaluation", Eval: sampleEvaluation()},
		{Name: "texts", Texts: &report.Texts{Prompt: "Once", Continuation: report.Continuation{Model: "a", Text: " upon a time", IDs: []int32{1, 2, 3, 4}}, Against: &report.Continuation{Model: "b", Text: " more", IDs: []int32{1, 2, 3}}, Same: &three}},
		{Name: "masks", Masks: sampleMasks()},
	}
}

// sampleSearch is a finished search of twenty trials, of which three were verified, with
// Wanda and RIA.
func sampleSearch(objective string) *pho.History {
	h, s := &pho.History{}, &pho.Stage2{Windows: 16, Dense: 25, Over: true}
	for i := range 20 {
		c := pho.At(float64(i)/20, float64(i*7%20)/20, 9)
		c.Depth = &pho.Depth{Slope: float64(i%5) / 10, First: -0.5}
		c.Kinds = map[string]pho.Kind{"v_proj": {Alpha: 0.1 * float64(i%4), Beta: 0.5, Power: 1}, "down_proj": {Alpha: 0.5, Beta: 0.25, Power: 0.05 * float64(i)}}
		h.Trials = append(h.Trials, pho.Rated{Coefficients: c, Value: 3.3 + 0.001*float64(i*i%17), Objective: objective})
		if objective == pho.GiniPruned && i < 12 {
			h.Checked = append(h.Checked, pho.Checked{Rated: h.Trials[i], Perplexity: eval.Number(40 + i%5)})
		}
	}
	if h.Checked != nil {
		h.Check = &pho.ProxyCheck{Proxy: objective, Candidates: 12, Correlation: &pho.Correlation{Rho: 0.3}}
	}
	s.Candidates = []pho.Candidate{{Name: "wanda", Coefficients: pho.Wanda(9)}, {Name: "ria", Coefficients: pho.RIA(9)}}
	for i := range 3 {
		s.Candidates = append(s.Candidates, pho.Candidate{Coefficients: h.Trials[i+1].Coefficients, Rating: h.Trials[i+1].Value})
	}
	for i := range s.Candidates {
		c := &s.Candidates[i]
		c.Screened = &pho.Screening{Windows: 8, Perplexity: eval.Number(34 - float64(i)), Chance: 0.001 * float64(i)}
		s.Steps = append(s.Steps, pho.Step{Candidate: i, Windows: 8, Perplexity: c.Screened.Perplexity})
	}
	for _, i := range []int{4, 3} {
		c := &s.Candidates[i]
		c.Screened.Windows, c.Screened.Perplexity, c.Perplexity, c.Blocks = 16, eval.Number(33-float64(i)), eval.Number(33.5-float64(i)), []float64{0.4, 0.5, 0.5 + 0.02*float64(i)}
		s.Steps = append(s.Steps, pho.Step{Candidate: i, Windows: 16, Perplexity: c.Screened.Perplexity},
			pho.Step{Candidate: i, Full: true, Windows: 16, Perplexity: c.Perplexity, Chances: []float64{0.001, 0.002, 0.003, 0.01 * float64(i), 0}})
	}
	for i := range 3 {
		s.Candidates[i].GivenUp = true
	}
	h.Stage2 = s
	return h
}

func sampleEvaluation() *report.Evaluation {
	return &report.Evaluation{Model: "pruned", Data: "text", Result: eval.Result{Perplexity: 30, Windows: 8, SeqLen: 64, Stderr: 1}, Against: &report.Comparison{
		Name: "dense", Comparison: eval.Comparison{Dense: eval.Result{Perplexity: 28}, Divergence: eval.Divergence{KL: eval.Spread{Mean: 0.1, P50: 0.05, P90: 0.2, P99: 0.5, Max: 2}, SameTop: 0.81}},
	}}
}

func sampleMasks() *report.MaskDifference {
	d := &report.MaskDifference{Model: "a", Against: &report.MaskTotal{Model: "b", Difference: report.Difference{Equal: 0.8, OnlyThis: 0.1, OnlyOther: 0.1}}}
	for b := range 2 {
		for k, kind := range kinds {
			d.Linears = append(d.Linears, report.LinearDifference{Name: fmt.Sprintf("model.layers.%d.%s", b, kind), Difference: &report.Difference{Equal: 0.7 + 0.01*float64(b+k), OnlyThis: 0.1, OnlyOther: 0.1}})
		}
	}
	return d
}

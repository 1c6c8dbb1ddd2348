package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/report"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/store"
)

// sampleRun is a run of a model of so many blocks with seven Linears, whose scores
// are as long as real ones.
func sampleRun(blocks int) report.Item {
	m, ms := &prune.Manifest{Recipe: recipe.Recipe{Method: "wanda"}}, &prune.Measures{Version: 1}
	for b := range blocks {
		for _, kind := range []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"} {
			name := fmt.Sprintf("model.layers.%d.%s", b, kind)
			third := 1.0 / 3
			s := prune.Scores{Gini: third}
			for i := range prune.MaxBins {
				s.Edges = append(s.Edges, float32(third)*float32(i+1))
				s.Kept, s.Pruned = append(s.Kept, 123456), append(s.Pruned, 654321)
				s.Lorenz = append(s.Lorenz, [2]float64{0.123456, 0.654321})
			}
			s.Edges = append(s.Edges, 100)
			m.Linears = append(m.Linears, prune.LinearReport{Name: name, Rows: 11008, Cols: 4096, Zeros: 22544384, Sparsity: third})
			ms.Linears = append(ms.Linears, prune.LinearMeasure{Name: name, EnergyLost: &third, Output: &prune.OutputError{Relative: third, Tokens: 512}, Scores: []prune.Scores{s}})
		}
	}
	return report.Item{Name: "run", Run: &report.Run{Manifest: m, Measures: ms}}
}

// A report is small enough to be sent by mail.
func TestSize(t *testing.T) {
	for blocks, most := range map[int]int{6: 2e6, 32: 5e6} {
		var page bytes.Buffer
		if err := report.Write(&page, report.Build("size", []report.Item{sampleRun(blocks)})); err != nil {
			t.Fatal(err)
		}
		if page.Len() > most {
			t.Errorf("%d blocks: %d bytes, want at most %d", blocks, page.Len(), most)
		}
	}
}

// The parts of a run's time add up to all of it.
func TestTimesAddUp(t *testing.T) {
	item := sampleRun(1)
	item.Run.Record = &prune.Record{Seconds: prune.Seconds{Load: 1, Rotate: 2, Allocate: 4, Calibrate: 8, Score: 16, Select: 32, Permute: 64, Refine: 128, Update: 256, Rebuild: 512, Measure: 1024, Write: 2048, Eval: 4096, Total: 8191}}
	for _, f := range report.Build("times", []report.Item{item}).Sections[0].Figures {
		if f.Title != "Where the time went" {
			continue
		}
		sum := 0.0
		for _, k := range f.Chart.Y {
			sum += f.Views[0].Rows[0][k].(float64)
		}
		if sum != item.Run.Record.Seconds.Total {
			t.Errorf("the parts are %v s, want %v", sum, item.Run.Record.Seconds.Total)
		}
		return
	}
	t.Error("no figure of times")
}

// The page holds its document, in which no text can end a script.
func TestPageHoldsItsDocument(t *testing.T) {
	item := sampleRun(1)
	item.Name = `</script><script>alert(1)</script>`
	d := report.Build(item.Name, []report.Item{item})
	var page bytes.Buffer
	if err := report.Write(&page, d); err != nil {
		t.Fatal(err)
	}
	if !report.IsPage(bytes.NewReader(page.Bytes())) || report.IsPage(strings.NewReader("<!DOCTYPE html>\n<title>a</title>")) {
		t.Error("a page is not told from another")
	}
	if strings.Contains(page.String(), "<script>alert") {
		t.Error("a name became a script")
	}
	_, data, _ := strings.Cut(page.String(), `id="data">`)
	data, _, ok := strings.Cut(data, "</script>")
	var back report.Document
	if err := json.Unmarshal([]byte(data), &back); err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
	want, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(&back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the page's document differs (%v)", err)
	}
}

// save writes the files of a folder of results.
func save(t *testing.T, dir string, files map[string]any) {
	t.Helper()
	for name, v := range files {
		text, ok := v.(string)
		if !ok {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// Results are known by what they are, and what is none is refused by name.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	item := sampleRun(1)
	item.Run.Manifest.Provenance, item.Run.Measures.Provenance = "p", "p"
	other := *item.Run.Measures
	other.Provenance = "q"
	save(t, dir, map[string]any{
		"run/crepe.json": item.Run.Manifest, "run/crepe-measures.json": item.Run.Measures,
		"run.run.json":      prune.Record{Version: 1, Provenance: "p", Model: "llama"},
		"older/crepe.json":  item.Run.Manifest,
		"older.run.json":    prune.Record{Version: 1, Provenance: "another run"},
		"mixed/crepe.json":  item.Run.Manifest,
		"nothing/file":      "",
		"eval.json":         `{"model":"m","compute":"f32","data":"text","perplexity":12.5,"nll":2.5,"windows":3,"tokens":6,"seqlen":2,"bos":false,"against":{"name":"d","kl":{"mean":0.25},"same_top":0.75}}`,
		"generate.json":     `{"compute":"f32","prompt":"a","model":"m","text":"b","ids":[1],"against":{"model":"n","text":"c","ids":[2]},"same_tokens":0}`,
		"masks.json":        `{"model":"m","against":{"model":"n","equal":0.5},"linears":[{"name":"model.layers.0.q","equal":0.5}]}`,
		"grid.json":         `{"methods":["ria"],"patterns":["50%"],"models":[{"model":"m","dense":{"method":"dense","perplexity":{"perplexity":3}},"cells":[]}]}`,
		"something.json":    `{"a":1}`,
		"list.json":         `[1]`,
		"empty.study":       "",
		"mixed2/crepe.json": item.Run.Manifest, "mixed2/crepe-measures.json": other,
		"newer/crepe.json": item.Run.Manifest, "newer/crepe-measures.json": `{"version":99}`,
		"broken/crepe.json": `{`,
	})
	load := func(names ...string) ([]report.Item, error) {
		for i, name := range names {
			names[i] = filepath.Join(dir, name)
		}
		return report.Load(t.Context(), names)
	}
	items, err := load("run", "older", "eval.json", "generate.json", "masks.json", "grid.json", "run")
	if err != nil {
		t.Fatal(err)
	}
	if r := items[0].Run; r.Record == nil || r.Record.Model != "llama" || !reflect.DeepEqual(r.Measures, item.Run.Measures) {
		t.Errorf("run: %+v", r)
	}
	if r := items[1].Run; r.Record != nil || r.Measures != nil {
		t.Errorf("a run without measures, beside another's record: %+v", r)
	}
	if e := items[2].Eval; e == nil || e.Perplexity != 12.5 || e.Against.KL.Mean != 0.25 || e.Against.SameTop != 0.75 {
		t.Errorf("eval: %+v", e)
	}
	if x := items[3].Texts; x == nil || x.Text != "b" || x.Against.Text != "c" || *x.Same != 0 {
		t.Errorf("generate: %+v", x)
	}
	if m := items[4].Masks; m == nil || m.Linears[0].Equal != 0.5 {
		t.Errorf("masks: %+v", m)
	}
	if g := items[5].Table; g == nil || g.Models[0].Model != "m" {
		t.Errorf("grid: %+v", g)
	}
	names := map[string]bool{}
	for _, i := range items {
		names[i.Name] = true
	}
	if len(names) != len(items) {
		t.Errorf("names %v, want one for each of %d", names, len(items))
	}
	for name, want := range map[string]string{
		"nothing": "nothing: no crepe.json in it, and no result", "absent": "absent: no such file or folder",
		"something.json": "want a folder of crepe prune, a file of studies", "list.json": "want a folder of crepe prune",
		"mixed2": "crepe-measures.json: of another run than crepe.json", "newer": "version 99, want 1 to 1", "broken": "broken/crepe.json",
	} {
		if _, err := load(name); err == nil || !strings.Contains(filepath.ToSlash(err.Error()), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	for _, broken := range []string{"mixed2", "newer", "broken", "mixed"} {
		if err := os.RemoveAll(filepath.Join(dir, broken)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "empty.study")); err != nil {
		t.Fatal(err)
	}
	if all, err := load(""); err != nil || len(all) != 6 {
		t.Errorf("%d results in the folder (%v), want 6", len(all), err)
	}
}

// Studies are read as they were added, also while they are at work.
func TestLoadStudies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "all.study")
	ctx := context.Background()
	s, err := store.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	add := func(name string, p provenance.Record, records ...[3]string) {
		t.Helper()
		st, err := s.Study(ctx, name, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if err := st.Add(ctx, r[0], search.Record{Key: r[1], Value: r[2]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("search", provenance.Record{{Name: "pattern", Value: "2:4"}, {Name: "sampler", Value: "cmaes"}, {Name: "kernels", Value: "[3 9]"}},
		[3]string{"trial", "0", `{"Number":0,"X":[0.25,0.5,0.9],"Value":0.31,"Of":{"objective":"gini_pruned","alpha":0.5,"beta":0.25,"gamma":0.25,"kernel":9,"power":0.5}}`},
		[3]string{"check", "0", `{"alpha":0.5,"beta":0.5,"gamma":0,"kernel":9,"power":0.5,"value":0.25,"objective":"gini_pruned"}`},
		[3]string{"screening", `{"alpha":0.5,"beta":0.5,"gamma":0,"kernel":9,"power":0.5} from 0`, `{"nll":[1]}`},
		[3]string{"field", "", `{"windows":2,"candidates":[{"alpha":1,"beta":1,"gamma":0,"kernel":3,"power":0.5,"name":"ria"},{"alpha":0.5,"beta":0.25,"gamma":0.25,"kernel":9,"power":0.5,"rating":0.31}]}`},
		[3]string{"full", `{"alpha":1,"beta":1,"gamma":0,"kernel":3,"power":0.5}`, `{"nll":[2,2],"blocks":[0.5]}`},
		[3]string{"screening", `{"alpha":0.5,"beta":0.25,"gamma":0.25,"kernel":9,"power":0.5} from 0`, `{"nll":[1,2]}`},
	)
	config := func(gini, nll float64) string {
		return fmt.Sprintf(`{"alpha":0.5,"beta":0.25,"gamma":0.25,"kernel":9,"gini_pruned":%v,"nll":%v,"perplexity":%v}`, gini, nll, 10*nll)
	}
	add("study", nil, [3]string{"config", "0", config(0.1, 1)}, [3]string{"config", "1", config(0.2, 2)}, [3]string{"config", "2", config(0.3, 3)}, [3]string{"config", "3", config(0.4, 5)})
	add("grid", nil,
		[3]string{"perplexity", "k", `{"what":"demo, crepe, kernel 3 at 50%","result":{"perplexity":9,"windows":4},"sparsity":0.5,"seconds":2}`},
		[3]string{"task", "k t", `{"task":"rte","documents":5,"acc":0.6}`},
		[3]string{"perplexity", "d", `{"what":"demo, dense","result":{"perplexity":8,"windows":4}}`},
	)
	items, err := report.Load(ctx, []string{path})
	if err != nil || len(items) != 3 {
		t.Fatalf("%d items (%v)", len(items), err)
	}
	h := items[0].History
	if tr := h.Trials[0]; tr.Alpha != 0.5 || tr.Beta != 0.25 || tr.Gamma != 0.25 || tr.Kernel != 9 || tr.Value != 0.31 {
		t.Errorf("trial %+v", tr)
	}
	if c := h.Checked; len(c) != 1 || c[0].Value != 0.25 || c[0].Perplexity != math.E || h.Check != nil {
		t.Errorf("checked %+v, %+v", c, h.Check)
	}
	s2 := h.Stage2
	if s2 == nil || s2.Over || s2.Best() != 0 || s2.Candidates[0].Name != "ria" || s2.Candidates[0].Perplexity != eval.Number(math.Exp(2)) || s2.Candidates[1].Screened.Windows != 2 {
		t.Fatalf("stage 2: %+v", s2)
	}
	want := []pho.Step{{Candidate: 0, Full: true, Windows: 2, Perplexity: eval.Number(math.Exp(2))}, {Candidate: 1, Windows: 2, Perplexity: eval.Number(math.Exp(1.5))}}
	if !reflect.DeepEqual(s2.Steps, want) {
		t.Errorf("steps %+v, want %+v", s2.Steps, want)
	}
	if p := items[1].History.Proxies; p[4].Rho != 1 || p[4].Low != 1 || p[0].Correlation != nil {
		t.Errorf("proxies %+v", p)
	}
	if g := items[2].Grid; len(g) != 2 || g[0].Method != "crepe, kernel 3" || g[0].Pattern != "50%" || g[0].Tasks[0].Acc != 0.6 || g[1].Method != "dense" || g[1].Pattern != "" {
		t.Errorf("grid %+v", items[2].Grid)
	}
	field := [3]string{"field", "", `{"windows":2,"candidates":[{"alpha":1,"beta":1,"gamma":0,"kernel":3,"power":0.5}]}`}
	const ria = `{"alpha":1,"beta":1,"gamma":0,"kernel":3,"power":0.5}`
	for _, bad := range [][][3]string{
		{{"trial", "1", `{"Number":1,"X":[0.1],"Value":1}`}}, {{"config", "9", "["}}, {{"field", "", "{"}}, {{"check", "1", "{}"}},
		{{"check", "0", `{"alpha":1,"beta":0,"gamma":0,"kernel":3,"power":0.5,"value":1,"objective":"gini_pruned"}`}}, // not measured
		{field, {"dense", "", `{"nll":[]}`}}, {field, {"full", ria, `{"nll":[1]}`}}, {field, {"full", ria, `{"nll":[1,1e300]}`}}, {field, {"screening", ria + " from 0", `{"nll":[1,1,1]}`}},
	} {
		add("bad", nil, bad...)
		if _, err := report.Load(ctx, []string{path}); err == nil || !strings.Contains(err.Error(), "study bad: ") {
			t.Errorf("%v: %v, want an error that names the study", bad, err)
		}
		if err := s.Forget(ctx, "bad"); err != nil {
			t.Fatal(err)
		}
	}
}

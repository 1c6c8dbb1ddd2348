package grid

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/recipe"
)

func names(rows []Row) (out []string) {
	for _, r := range rows {
		out = append(out, r.Name)
	}
	return out
}

func TestRowsOfSpecs(t *testing.T) {
	one, two := []Budget{{"full", 60, 10}}, []Budget{{"full", 60, 10}, {"full", 30, 5}}
	for _, c := range []struct {
		specs   string
		kernels []int
		budgets []Budget
		want    string
	}{
		{"wanda,crepe", nil, one, "wanda;crepe"},
		{"ria, crepe+sparsegpt ,pho", []int{3, 9}, one, "ria;crepe+sparsegpt, kernel 3;crepe+sparsegpt, kernel 9;pho, kernel 3;pho, kernel 9"},
		{"pho,pho+sparsegpt,sparsegpt", nil, two, "pho (full, 60, 10);pho (full, 30, 5);pho+sparsegpt (full, 60, 10);pho+sparsegpt (full, 30, 5);sparsegpt"},
	} {
		rows, err := ParseRows(strings.Split(c.specs, ","), c.kernels, c.budgets)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names(rows), ";"); got != c.want {
			t.Errorf("%s makes %s, want %s", c.specs, got, c.want)
		}
	}
	rows, err := ParseRows([]string{"pho+sparsegpt"}, []int{3, 5}, one)
	if err != nil {
		t.Fatal(err)
	}
	if r := rows[1]; r.Recipe.Method != "crepe" || r.Recipe.Update != "sparsegpt" || r.Recipe.Params["kernel"] != 5 || rows[0].Recipe.Params["kernel"] != 3 || *r.Budget != one[0] {
		t.Errorf("pho+sparsegpt is %+v", r)
	}
	for specs, want := range map[string]string{
		"wanda,obs":     `unknown method "obs" in "obs", want one of magnitude, wanda, ria, crepe, sparsegpt`,
		"crepe+pho":     `unknown step "pho" in "crepe+pho"`,
		"wanda,wanda":   "method wanda: listed twice",
		"pho+sparsgept": `unknown step "sparsgept" in "crepe+sparsgept"`,
	} {
		if _, err := ParseRows(strings.Split(specs, ","), nil, one); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %s", specs, err, want)
		}
	}
	if _, err := ParseRows([]string{"wanda"}, []int{3}, one); err == nil || !strings.Contains(err.Error(), "kernels: no method") {
		t.Errorf("error %v, want one about kernels", err)
	}
}

func TestPatterns(t *testing.T) {
	got, err := ParsePatterns([]string{"50%", " 0.6", "2:4"})
	if err != nil || !reflect.DeepEqual(got, []string{"50%", "60%", "2:4"}) {
		t.Errorf("%v (%v)", got, err)
	}
	for _, bad := range [][]string{{"50%", "0.5"}, {"4:2"}, {"half"}, {""}, {"120%"}} {
		if got, err := ParsePatterns(bad); err == nil {
			t.Errorf("%v: %v, want an error", bad, got)
		}
	}
}

// A row is refused before any work only if it can be nowhere.
func TestCheck(t *testing.T) {
	rows, err := ParseRows([]string{"wanda", "crepe+owl"}, nil, []Budget{{"perplexity", 1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(rows, recipe.Recipe{}, []string{"2:4", "50%"}); err != nil {
		t.Error(err)
	}
	if err := Check(rows, recipe.Recipe{}, []string{"2:4", "4:8"}); err == nil || !strings.Contains(err.Error(), "crepe+owl at 2:4: allocate: owl") {
		t.Errorf("error %v, want that of crepe+owl at 2:4", err)
	}
}

func report() *Report {
	p := func(v float64) *eval.Result { return &eval.Result{Perplexity: eval.Number(v), Windows: 64} }
	e := 0.01
	rte := func(acc float64) []task.Result {
		return []task.Result{{Task: "rte", Documents: 277, Acc: acc, AccStderr: &e, AccNorm: acc}}
	}
	found := pho.Candidate{Coefficients: pho.Coefficients{Alpha: 1, Beta: 1, Gamma: 2, Kernel: 9}}
	return &Report{Methods: []string{"ria", "pho"}, Patterns: []string{"50%", "2:4"}, Models: []ModelReport{{
		Model: "m", Architecture: "A", Compute: "f32", Data: "wikitext2", Windows: 64, SeqLen: 2048, BOS: true, Verification: "c4 (held out)",
		Dense: Cell{Method: Dense, Perplexity: p(5.474), Tasks: rte(0.5)},
		Cells: []Cell{
			{Method: "ria", Pattern: "50%", Perplexity: p(6.8149), Tasks: rte(0.25), Sparsity: 0.5},
			{Method: "ria", Pattern: "2:4", Refused: "3 columns"},
			{Method: "pho", Pattern: "50%", Perplexity: p(6.7), Tasks: rte(0.75), Found: &found},
			{Method: "pho", Pattern: "2:4", Perplexity: p(123456), Tasks: rte(0), Found: &found},
		},
	}}}
}

func TestMarkdown(t *testing.T) {
	const want = `Perplexity of m (A) on wikitext2, 64 windows of 2048 tokens, with BOS, f32; dense 5.47.

| method | 50% | 2:4 |
|---|---:|---:|
| ria | 6.81 | – |
| pho | 6.70 | 1.23e+05 |

Zero-shot accuracy at 50%, acc / acc_norm (no BOS).

| method | rte | mean |
|---|---:|---:|
| dense | 0.5000 / 0.5000 | 0.5000 / 0.5000 |
| ria | 0.2500 / 0.2500 | 0.2500 / 0.2500 |
| pho | 0.7500 / 0.7500 | 0.7500 / 0.7500 |

Zero-shot accuracy at 2:4, acc / acc_norm (no BOS).

| method | rte | mean |
|---|---:|---:|
| dense | 0.5000 / 0.5000 | 0.5000 / 0.5000 |
| ria | – | – |
| pho | 0.0000 / 0.0000 | 0.0000 / 0.0000 |

- ria at 2:4, –: 3 columns
- pho at 50%: α 0.25 β 0.25 γ 0.5 kernel 9 power 0, verified on c4 (held out)
- pho at 2:4: α 0.25 β 0.25 γ 0.5 kernel 9 power 0, verified on c4 (held out)

`
	if got := report().markdown(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	two := report()
	two.Patterns = []string{"50%"}
	two.Models = append(two.Models, two.Models[0])
	two.Models[1].Model = "n"
	odd := report()
	odd.Models[0].Model, odd.Models[0].Data, odd.Methods[0] = "m\n# x", "w|<script>\r\nx", "r|<b>ia"
	odd.Models[0].Cells[0].Method, odd.Models[0].Cells[1].Method = odd.Methods[0], odd.Methods[0]
	if got := odd.markdown(); !strings.HasPrefix(got, "Perplexity of m # x (A) on w&#124;&lt;script>  x, 64 windows") || !strings.Contains(got, "\n| r&#124;&lt;b>ia | 6.81 |") {
		t.Errorf("odd names: %s", got)
	}
	if got := two.markdown(); !strings.HasPrefix(got, "| 50% | m | n |\n|---|---:|---:|\n| dense | 5.47 | 5.47 |\n| ria | 6.81 | 6.81 |\n| pho | 6.70 | 6.70 |\n\n## m\n") {
		t.Errorf("two models, one pattern: %s", got)
	}
}

func TestCSVAndJSON(t *testing.T) {
	var out bytes.Buffer
	if err := report().Write(&out, "csv"); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"model,method,pattern,measure,value,stderr,n,sparsity,seconds,refused,computed_by\n",
		"m,dense,,perplexity,5.474,,64,0,0,,\n", "m,ria,50%,rte acc,0.25,0.01,277,0.5,0,,\n", "m,ria,2:4,perplexity,,,,0,0,3 columns,\n",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no line %q in\n%s", line, out.String())
		}
	}
	out.Reset()
	if err := report().Write(&out, "json"); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || !reflect.DeepEqual(&back, report()) {
		t.Errorf("JSON comes back as %+v (%v)", back, err)
	}
}

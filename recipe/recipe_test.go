package recipe

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
)

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	want := Recipe{
		Method: "crepe", Params: param.Values{"alpha": 0.25, "kernel": 5}, Pattern: "2:4", Skip: `q_proj|"quoted": #`,
		Calibration: Calibration{Source: "c4", Seed: 7},
		Eval:        Eval{Source: "wikitext2", Windows: 3},
	}.WithDefaults()
	text, err := want.YAML()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "r.yaml")
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

// Coefficients are what is best over real models, the rest is the literature's protocol.
func TestDefaults(t *testing.T) {
	r, err := Recipe{}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if r.Method.Name != "crepe" || !reflect.DeepEqual(r.Params, param.Values{"alpha": 1., "beta": 1., "gamma": 0., "delta": 0., "kernel": 9, "power": 1.}) {
		t.Errorf("%s %+v", r.Method.Name, r.Params)
	}
	if n, err := r.Target.Pruned(10, 11); err != nil || n != 50 || r.Target.Group != pattern.Row {
		t.Errorf("prunes %d of 110 (%v) within %v, want 5 of 11 in each row", n, err, r.Target.Group)
	}
	d := Recipe{}.WithDefaults()
	if d.Calibration.Samples != 128 || d.Calibration.SeqLen != 2048 || d.Calibration.Seed != 0 || d.Eval.SeqLen != 2048 {
		t.Errorf("%+v", d)
	}
	if r, err := (Recipe{Method: "wanda"}).Resolve(); err != nil || r.Target.Group != pattern.Row {
		t.Errorf("wanda compares within %v (%v), want rows", r.Target.Group, err)
	}
}

// A refinement's defaults are its source's, and it needs data whatever the score.
func TestRefinementDefaults(t *testing.T) {
	r := Recipe{Method: "magnitude", Refine: "dsnot"}
	if d := r.WithDefaults(); d.Params["refine_layers"] != "attention" || d.Params["refine_cycles"] != 50 {
		t.Errorf("%v", d.Params)
	}
	got, err := r.Resolve()
	if err != nil || got.Refine == nil || !got.Method.NeedsData || got.Params.Whole("refine_cycles") != 50 {
		t.Errorf("%+v (%v)", got, err)
	}
	if d := (Recipe{}).WithDefaults(); d.Params["refine_layers"] != nil || d.Params["refine_cycles"] != nil {
		t.Errorf("nothing is refined, yet %v", d.Params)
	}
}

// What is written must not depend on defaults, which may change.
func TestDefaultsAreFilledIn(t *testing.T) {
	for text, want := range map[string]string{
		"method: crepe":                "alpha: 1\nbeta: 1\ngamma: 0\ndelta: 0\nkernel: 9\npower: 1\n",
		"method: ria":                  "power: 0.5\n",
		"method: wanda":                "compare: row\n",
		"allocate: owl":                "owl_lambda: 0.08\nowl_m: 5\n",
		"allocate: dlp":                "dlp_alpha: 0.15\ndlp_center: mean\n",
		"allocate: alphapruning":       "alphapruning_epsilon: 0.3\n",
		"{refine: swaps, alpha: 0.25}": "refine_layers: all\nrefine_cycles: 100\nfit_to: own\nfit_tokens: equal\n",
	} {
		r, err := Parse([]byte(strings.NewReplacer("{", "{version: 1, ").Replace("{" + strings.Trim(text, "{}") + "}")))
		if err != nil {
			t.Fatal(err)
		}
		yaml, err := r.WithDefaults().YAML()
		if err != nil || !strings.Contains(string(yaml), want) {
			t.Errorf("%s is written as\n%swant %s", text, yaml, want)
		}
		if !reflect.DeepEqual(r.WithDefaults().WithoutDefaults().WithDefaults(), r.WithDefaults()) || !r.Equal(r.WithDefaults()) {
			t.Errorf("%s is not itself with its defaults", text)
		}
	}
	// What was chosen stays where another method comes in.
	r := Recipe{Method: "crepe", Params: param.Values{"alpha": 0.25}}.WithDefaults().WithoutDefaults()
	if len(r.Params) != 1 || r.Params["alpha"] != 0.25 || r.Compare != "" {
		t.Errorf("%+v, want alpha alone", r)
	}
}

// Parameters are keys like all others, in YAML beside the step that they are of.
func TestParametersAreKeys(t *testing.T) {
	r := Recipe{Method: "ria", Permute: "lsa", Refine: "dsnot", Pattern: "2:4", Params: param.Values{"power": 1, "lsa_fast": true}}.WithDefaults()
	text, err := r.YAML()
	want := "version: 1\nmethod: ria\npower: 1\npermute: lsa\nlsa_fast: true\nrefine: dsnot\nrefine_layers: attention\nrefine_cycles: 50\npattern: \"2:4\"\n"
	if err != nil || !strings.Contains(string(text), want) {
		t.Errorf("%s (%v), want\n%s", text, err, want)
	}
	object, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(object), `"lsa_fast":true,"power":1,"refine_cycles":50,"refine_layers":"attention"}`) {
		t.Errorf("%s (%v)", object, err)
	}
	var back Recipe
	if err := json.Unmarshal(object, &back); err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("JSON comes back as %+v (%v), want %+v", back, err, r)
	}
	for _, said := range []string{"alpha: null", "dlp_center: ''", "lsa_fast: false"} { // nothing
		if r, err := Parse([]byte("version: 1\nmethod: wanda\n" + said)); err != nil || len(r.Params) > 0 {
			t.Errorf("%s: %v (%v), want no parameter", said, r.Params, err)
		}
	}
}

// What is true of one declaration must be true of all that share its name.
func TestDeclarations(t *testing.T) {
	seen := map[string]param.Spec{}
	for _, s := range Steps() {
		for _, m := range s.Methods() {
			for _, p := range m.Params {
				if err := p.Check(p.Default); err != nil || p.Doc == "" {
					t.Errorf("%s of %s: its default: %v; doc %q", p.Name, m.Name, err, p.Doc)
				}
				was, ok := seen[p.Name]
				p.Default = nil
				if ok && !reflect.DeepEqual(was, p) {
					t.Errorf("%s is %+v, of %s %+v", p.Name, was, m.Name, p)
				}
				seen[p.Name] = p
			}
		}
	}
	for f := range reflect.TypeFor[Recipe]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if _, ok := seen[name]; ok {
			t.Errorf("%s is a parameter and a field", name)
		}
	}
}

func TestEachErrorNamesItsField(t *testing.T) {
	for text, want := range map[string]string{
		``:                                 "empty",
		`version: 1` + "\n---\nversion: 1": "more than one",
		`version: 2`:                       "version: 2",
		`method: crepe`:                    "version: 0",
		`[1, 2]`:                           "line 1: a list, want fields of its own",
		`{version: 1, methd: ria}`:         `line 1: unknown field "methd"`,
		`{version: 1, method: prayer}`:     `method "prayer"`,
		`{version: 1, method: magnitude, alpha: 1}`:                        "alpha: method magnitude has no parameters",
		`{version: 1, method: ria, gamma: 1}`:                              "gamma: method ria does not read it; it reads",
		`{version: 1, alpha: -1}`:                                          "alpha: -1",
		`{version: 1, alpha: .nan}`:                                        "alpha: NaN",
		`{version: 1, beta: .inf}`:                                         "beta: +Inf",
		`{version: 1, kernel: 4}`:                                          "kernel",
		`{version: 1, sparsity: 50%, pattern: "2:4"}`:                      "pattern: 2:4 with sparsity",
		`{version: 1, compare: row, pattern: "2:4"}`:                       "compare: row with pattern",
		`{version: 1, compare: col}`:                                       "compare: ",
		`{version: 1, sparsity: 100%}`:                                     `sparsity "100%"`,
		`{version: 1, pattern: "4:2"}`:                                     `pattern "4:2"`,
		`{version: 1, refine: prayer}`:                                     `refine: unknown refinement "prayer", want one of dsnot, swaps`,
		`{version: 1, refine: dsnot, method: sparsegpt}`:                   "refine: dsnot with method sparsegpt",
		`{version: 1, refine_layers: all}`:                                 "refine_layers: all without refinement: want refine dsnot or swaps too",
		`{version: 1, refine_cycles: 3}`:                                   "refine_cycles: 3 without refinement: want refine dsnot or swaps too",
		`{version: 1, refine: dsnot, refine_layers: mlp}`:                  `refine_layers: "mlp", want attention or all`,
		`{version: 1, refine: dsnot, refine_cycles: -1}`:                   "refine_cycles: -1, want at least 1",
		`{version: 1, allocate: owls}`:                                     `allocate: unknown allocation "owls", want one of uniform, owl`,
		`{version: 1, allocate: owl, pattern: "2:4"}`:                      "allocate: owl with pattern 2:4",
		`{version: 1, owl_lambda: 0.1}`:                                    "owl_lambda: 0.1 without allocation: want allocate owl too",
		`{version: 1, allocate: dlp, owl_m: 3}`:                            "owl_m: allocation dlp does not read it; it reads dlp_alpha, dlp_center",
		`{version: 1, allocate: owl, dlp_center: mean}`:                    "dlp_center: allocation owl does not read it",
		`{version: 1, allocate: owl, owl_lambda: -1}`:                      "owl_lambda: -1, want 0 to 1",
		`{version: 1, allocate: dlp, dlp_center: mode}`:                    `dlp_center: "mode", want mean or median`,
		`{version: 1, allocate: alphapruning, alphapruning_epsilon: .nan}`: "alphapruning_epsilon: NaN",
		`{version: 1, permute: lsa}`:                                       "permute: lsa without a pattern N:M",
		`{version: 1, permute: cp, lsa_fast: true, pattern: "2:4"}`:        "lsa_fast: permutation cp has no parameters",
		`{version: 1, lsa_fast: true, pattern: "2:4"}`:                     "lsa_fast: true without permutation: want permute lsa too",
		`{version: 1, fused: halves}`:                                      `fused: "halves", want whole or split`,
		`{version: 1, skip: "a|("}`:                                        `skip: "a|(": missing closing ): "a|("`,
		`{version: 1, skip: "` + strings.Repeat("(a|b)*", 10000) + `"}`:    "skip: an expression of 60000 bytes, want at most 4096",
		"version: 1\nkinds: {" + many("q%d: {alpha: 2}, ", 20000) + "}\n":  "line 2: 20000 fields, want at most 1024",
		"version: 1\n" + many("x%d: 2\n", 20000):                           "line 1: 20001 fields, want at most 1024",
		`{version: 1, compute: f64}`:                                       "compute: ",
		`{version: 1, calibration: {samples: -1}}`:                         "calibration samples: -1",
		`{version: 1, calibration: {seqlen: 1}}`:                           "calibration seqlen: 1",
		`{version: 1, calibration: {seed: -1}}`:                            "calibration seed: -1",
		`{version: 1, eval: {windows: -1}}`:                                "eval windows: -1",
		`{version: 1, eval: {windows: 1048577}}`:                           "eval windows: 1048577, want at most 1048576",
		`{version: 1, calibration: {samples: 1000000000000000}}`:           "calibration samples: 1000000000000000, want at most 262144",
		`{version: 1, calibration: {seqlen: 16777217}}`:                    "calibration seqlen: 16777217, want at most",
		`{version: 1, calibration: {samples: many}}`:                       "line 1: `many`, want a whole number",
		`{version: 1, skip: [a]}`:                                          "line 1: a list, want a text",
		`{version: 1, calibration: {samples: 2.5}}`:                        "samples: 2.5, want a whole number",
		`{version: 1, kernel: 5.5}`:                                        "kernel: 5.5, want a whole number",
		`{version: 1.5}`:                                                   "version: 1.5, want a whole number",
		`{version: 1, refine: dsnot, refine_cycles: 1e-1}`:                 "refine_cycles: 0.1, want a whole number",
		`{version: 1, calibration: {samples: 99999999999999999999}}`:       "line 1",
		"version: 1\ncalibration:\n  ~: 3":                                 "line 3: `~` for a key, want a text",
		"version: 1\neval:\n  ? \n  : none":                                "line 3: nothing for a key, want a text",
		`{version: 1, kinds: {q_proj: {null: 1}}}`:                         "line 1: `null` for a key, want a text",
		`{version: 1, kinds: {3: {alpha: 1}}}`:                             "line 1: `3` for a key, want a text",
		`{version: 1, [a]: 1}`:                                             "line 1: a list for a key, want a text",
		"version: &m ~\n*m : 3":                                            "line 2: `m` for a key, want a text",
		`{version: 1, <<: {~: wanda}}`:                                     "line 1: `~` for a key, want a text",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
	if _, err := Parse(make([]byte, maxBytes+1)); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("a recipe of %d bytes: %v", maxBytes+1, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version: 1\nmethod: wanda\npattern: \"2:4\"\ncalibration: {source: c4, samples: 128}\n"))
	f.Add([]byte("version: 1\nalpha: 0.5\nkernel: 5\nskip: \"q_proj|k_proj\"\n"))
	f.Add([]byte("a: &a [*a, *a]\n"))
	f.Add([]byte("version: 1e3\nsparsity: 0.333\n"))
	f.Add([]byte("version: 1\ncalibration: {source: c4, samples: 1000000000000000, seqlen: 16.99}\n"))
	f.Add([]byte("version: 1\nx: &x [1, 1, 1, 1]\ny: &y [*x, *x, *x, *x]\nz: &z [*y, *y, *y, *y]\nskip: [*z, *z, *z]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r Recipe
		var err error
		golden.Ceiling(t, uint64(4<<20+2000*len(text)), func() { r, err = Parse(text) })
		if err != nil {
			return
		}
		again, err := r.YAML()
		if err != nil {
			t.Fatalf("%q: accepted, but not written: %v", text, err)
		}
		if back, err := Parse(again); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%q: read as %+v, written and read as %+v (%v)", text, r, back, err)
		}
	})
}

// many is text with each number below n in turn.
func many(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

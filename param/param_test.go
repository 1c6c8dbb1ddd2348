package param

import (
	"math"
	"testing"
)

var specs = []Spec{
	{Name: "owl_lambda", Doc: "half the range", Default: 0.08, Max: 1},
	{Name: "cycles", Default: 50, Min: 1},
	{Name: "width", Default: 9, Choices: []any{3, 9}},
	{Name: "center", Default: "mean", Choices: []any{"mean", "median"}},
	{Name: "fast", Default: false},
}

func TestCheck(t *testing.T) {
	d := Defaults(specs)
	if err := Check(specs, d); err != nil {
		t.Fatal(err)
	}
	for want, v := range map[string]Values{
		"owl_lambda: 1.5, want 0 to 1":                    d.With("owl_lambda", 1.5),
		"owl_lambda: -1, want 0 to 1":                     d.With("owl_lambda", -1.),
		"owl_lambda: NaN, want 0 to 1":                    d.With("owl_lambda", math.NaN()),
		"owl_lambda: a, want a number, 0 to 1":            d.With("owl_lambda", "a"),
		"cycles: 0, want at least 1":                      d.With("cycles", 0),
		"cycles: 1.5, want a whole number, at least 1":    d.With("cycles", 1.5),
		"width: 4, want 3 or 9":                           d.With("width", 4),
		`center: "mode", want mean or median`:             d.With("center", "mode"),
		"center: 3, want a text, mean or median":          d.With("center", 3),
		"fast: 1, want a switch, true or false":           d.With("fast", 1),
		"cycles: none, want at least 1":                   d.Only([]Spec{specs[0], specs[2], specs[3], specs[4]}),
		"cycles: 1e+300, want a whole number, at least 1": d.With("cycles", 1e300),
		"width: 9007199254740993, want 3 or 9":            d.With("width", 1<<53+1),
		"owl_lambda: +Inf, want 0 to 1":                   d.With("owl_lambda", math.Inf(1)),
		"owl_lambda: <nil>, want a number, 0 to 1":        d.With("owl_lambda", nil),
	} {
		if err := Check(specs, v); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if len(d) != len(specs) || d.Number("owl_lambda") != 0.08 || d.Whole("width") != 9 || d.Text("center") != "mean" || d.On("fast") {
		t.Errorf("the defaults are changed: %v", d)
	}
}

func TestParseAndConvert(t *testing.T) {
	for i, texts := range [][2]string{{"0.5", "half"}, {"3", "3.5"}, {"9", ""}, {"median", ""}, {"true", "perhaps"}} {
		if v, err := specs[i].Parse(texts[0]); err != nil || specs[i].Check(v) != nil {
			t.Errorf("%s %q: %v (%v)", specs[i].Name, texts[0], v, err)
		}
		if v, err := specs[i].Parse(texts[1]); texts[1] != "" && err == nil {
			t.Errorf("%s %q: %v, want an error", specs[i].Name, texts[1], v)
		}
	}
	if v, err := specs[0].Convert(1); err != nil || v != 1. {
		t.Errorf("1 as a number is %v (%v)", v, err)
	}
	if v, err := specs[1].Convert(1e3); err != nil || v != 1000 {
		t.Errorf("1e3 as a whole number is %v (%v)", v, err)
	}
	if specs[0].Flag() != "owl-lambda" {
		t.Errorf("flag %s", specs[0].Flag())
	}
}

func TestUndeclaredPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a method reads what it did not declare")
		}
	}()
	Defaults(specs).Number("epsilon")
}

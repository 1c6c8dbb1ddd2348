package pho

import (
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/search"
)

// What a study cannot hold is refused, not shown as a perplexity of +Inf or 0.
func TestDamagedRecords(t *testing.T) {
	for _, nll := range [][]float64{nil, {1}, {1, 2, 3}, {1, -2}, {1, 1e300}} {
		if err := checkNLL(nll, 2); err == nil {
			t.Errorf("%v for two windows: no error", nll)
		}
	}
	if err := checkNLL([]float64{6524.26, -1e-9}, 2); err != nil {
		t.Error(err)
	}
	c := Equal(3)
	const head = `{"alpha":1,"beta":1,"gamma":1,"kernel":3,"power":0.5,`
	for value, want := range map[string]string{
		head + `"nll":1,"perplexity":2.718281828459045}`: "",
		head + `"nll":1,"perplexity":3}`:                 "damaged",
		head + `"nll":1e300,"perplexity":1}`:             "damaged",
		head + `"nll":-5,"perplexity":0}`:                "damaged",
		head + `"nll":1e999}`:                            "want configuration 0",
		`{}`:                                             "of another version",
		`[`:                                              "want configuration 0",
	} {
		was := Config{Coefficients: c}
		err := recallConfig(&was, 0, search.Record{Key: "0", Value: value})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
}

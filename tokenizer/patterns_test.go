package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// Texts are cut at a pattern as Python cuts them, or the pattern is refused by
// the name of what is not supported: by tools/golden_patterns.py, published
// patterns, one for each construct of the syntax, and random ones.
func TestPatternsGolden(t *testing.T) {
	var golden struct {
		Texts []string
		Cases []struct {
			Pre   json.RawMessage
			Error string
			Cuts  [][]int
		}
	}
	if err := json.Unmarshal(readGzip(t, "testdata/patterns.gz"), &golden); err != nil {
		t.Fatal(err)
	}
	equal, unsupported, both, gaveUp := 0, 0, 0, 0
	for _, c := range golden.Cases {
		tok, err := Parse(tiny(t, `{"pre_tokenizer": `+string(c.Pre)+`}`))
		switch {
		case err != nil && c.Error != "":
			both++
			continue
		case err != nil:
			unsupported++
			if !strings.Contains(err.Error(), "is not supported") {
				t.Errorf("%s: refused, but not by name: %v", c.Pre, err)
			}
			continue
		case c.Error != "":
			t.Errorf("%s: read, but Python says %s", c.Pre, c.Error)
			continue
		}
		equal++
		for i, text := range golden.Texts {
			got, err := cuts(tok, text, 1<<22)
			if c.Cuts[i] == nil || err != nil { // takes too many steps, for Python or here
				if err != nil && !strings.Contains(err.Error(), "too many steps") {
					t.Errorf("%s on %q: %v", c.Pre, text, err)
				}
				gaveUp++
				continue
			}
			if !slices.Equal(got, c.Cuts[i]) {
				t.Errorf("%s on %q: parts of %v bytes, want %v", c.Pre, text, got, c.Cuts[i])
				break
			}
		}
	}
	t.Logf("%d patterns cut alike, %d not supported, %d refused by Python too; %d cuts given up", equal, unsupported, both, gaveUp)
	if equal < 450 || gaveUp > 40 {
		t.Errorf("%d patterns cut alike, want 450; %d cuts given up, want at most 40", equal, gaveUp)
	}
}

// cuts returns the lengths of the parts that the pre-tokenizer makes of text.
func cuts(tok *Tokenizer, text string, steps int) ([]int, error) {
	lengths := []int{}
	e := &encoder{t: &Tokenizer{stages: append(slices.Clone(tok.stages), counter{&lengths})}, budget: budget{steps: steps}}
	e.run(0, text, true)
	return lengths, e.err
}

// counter is a stage that notes how long the parts are that come to it.
type counter struct{ lengths *[]int }

func (c counter) apply(_ *encoder, _ int, text string, _ bool) {
	*c.lengths = append(*c.lengths, len(text))
}

package pattern

import (
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

func TestParseSparsity(t *testing.T) {
	for in, want := range map[string]struct {
		num, den uint64
		text     string
	}{
		"50%":                 {1, 2, "50%"},
		"0.5":                 {1, 2, "50%"},
		"0.50":                {1, 2, "50%"},
		"62.5%":               {5, 8, "62.5%"},
		"0":                   {0, 1, "0%"},
		"0%":                  {0, 1, "0%"},
		"0.29":                {29, 100, "29%"},
		"007.0%":              {7, 100, "7%"},
		"99.9%":               {999, 1000, "99.9%"},
		"0.999999999999999":   {999999999999999, 1000000000000000, "99.9999999999999%"},
		"0.000000000000001%":  {1, 100000000000000000, "0.000000000000001%"},
		"33.333333333333333%": {33333333333333333, 100000000000000000, "33.333333333333333%"},
	} {
		s, err := ParseSparsity(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if s.num != want.num || s.den() != want.den || s.String() != want.text {
			t.Errorf("%q = %d/%d %s, want %d/%d %s", in, s.num, s.den(), s, want.num, want.den, want.text)
		}
		if again, err := ParseSparsity(s.String()); again != s || err != nil {
			t.Errorf("%q prints as %s, which is %v, %v", in, s, again, err)
		}
		if f := float64(want.num) / float64(want.den); s.Float64() != f {
			t.Errorf("%q: Float64 %v, want %v", in, s.Float64(), f)
		}
	}
}

func TestParseSparsityRefuses(t *testing.T) {
	for in, why := range map[string]string{
		"":                      "not a decimal",
		"%":                     "not a decimal",
		".5":                    "not a decimal",
		"5.%":                   "not a decimal",
		"-0.1":                  "not a decimal",
		"+0.1":                  "not a decimal",
		"1e-1":                  "not a decimal",
		"1e999":                 "not a decimal",
		"NaN":                   "not a decimal",
		"inf":                   "not a decimal",
		"0x1p-1":                "not a decimal",
		"0.5 ":                  "not a decimal",
		"50 %":                  "not a decimal",
		"50%%":                  "not a decimal",
		"0,5":                   "not a decimal",
		"0.5.5":                 "not a decimal",
		"٥%":                    "not a decimal",
		"1":                     "not below 1",
		"1.0":                   "not below 1",
		"100%":                  "not below 1",
		"100.5%":                "not below 1",
		"50":                    `did you mean 50%?`,
		"123":                   "not below 1",
		"99999999999999999999%": "not below 1",
		"0.1234567890123456":    "more than 15 digits",
	} {
		s, err := ParseSparsity(in)
		if s != (Sparsity{}) || err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q = %v, %v, want an error with %q", in, s, err, why)
		}
	}
}

// Floor of an exact product; 0.29·100 is 28.999… in floating point.
func TestCountOf(t *testing.T) {
	for _, c := range []struct {
		s       string
		n, want int
	}{
		{"0.29", 100, 29}, {"29%", 100, 29}, {"57%", 100, 57}, {"0.58", 100, 58},
		{"50%", 0, 0}, {"50%", 1, 0}, {"50%", 7, 3}, {"0", 1 << 60, 0}, {"99.9%", 999, 998},
	} {
		s, err := ParseSparsity(c.s)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CountOf(c.n); got != c.want {
			t.Errorf("%s of %d: %d, want %d", c.s, c.n, got, c.want)
		}
	}
	rng := rand.New(rand.NewPCG(1, 0))
	for range 2000 {
		den := 1 + rng.Uint64N(100_000_000_000_000_000)
		num := rng.Uint64N(den)
		n := int(rng.Uint64() >> (1 + rng.IntN(63)))
		product := new(big.Int).Mul(new(big.Int).SetUint64(num), big.NewInt(int64(n)))
		want := product.Div(product, new(big.Int).SetUint64(den)).Int64()
		if got := newSparsity(num, den).CountOf(n); int64(got) != want {
			t.Fatalf("%d/%d of %d: %d, want %d", num, den, n, got, want)
		}
	}
	if (Sparsity{}).CountOf(5) != 0 || (Sparsity{}).String() != "0%" {
		t.Error("the zero value is not 0")
	}
}

func TestParsePattern(t *testing.T) {
	for in, want := range map[string]Pattern{
		"2:4": {2, 4}, "1:4": {1, 4}, "4:8": {4, 8}, "1:2": {1, 2}, "1023:1024": {1023, 1024},
	} {
		if p, err := ParsePattern(in); p != want || err != nil || p.String() != in {
			t.Errorf("%q = %v, %v", in, p, err)
		}
	}
	for in, why := range map[string]string{
		"":                       "no colon",
		"2":                      "no colon",
		"24":                     "no colon",
		":":                      `"" is no number`,
		"2:":                     `"" is no number`,
		"2:4:8":                  `"4:8" is no number`,
		"-2:4":                   `"-2" is no number`,
		"+2:4":                   `"+2" is no number`,
		"2 :4":                   `"2 " is no number`,
		"2.0:4":                  `"2.0" is no number`,
		"0:4":                    "keeps nothing",
		"4:4":                    "prunes nothing",
		"5:4":                    "prunes nothing",
		"2:1025":                 "at most 1024",
		"2:99999999999999999999": "is no number",
	} {
		if p, err := ParsePattern(in); p != (Pattern{}) || err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q = %v, %v, want an error with %q", in, p, err, why)
		}
	}
}

func TestPatternSparsity(t *testing.T) {
	for p, want := range map[Pattern]string{
		{2, 4}: "50%", {1, 4}: "75%", {4, 8}: "50%", {5, 8}: "37.5%", {1, 3}: "66.666666666666666%", {}: "0%",
	} {
		if got := p.Sparsity().String(); got != want {
			t.Errorf("%v: %s, want %s", p, got, want)
		}
	}
	if (Pattern{}).String() != "" {
		t.Error("no pattern has a name")
	}
}

func TestGroup(t *testing.T) {
	for _, g := range []Group{Matrix, Row} {
		if got, err := ParseGroup(g.String()); got != g || err != nil {
			t.Errorf("%v: %v, %v", g, got, err)
		}
	}
	if _, err := ParseGroup("column"); err == nil || err.Error() != `group "column", want matrix or row` {
		t.Errorf("error %v", err)
	}
	if got := Group(9).String(); got != "Group(9)" {
		t.Error(got)
	}
}

func TestTargetPruned(t *testing.T) {
	third := Target{Sparsity: newSparsity(1, 3)}
	byRow := third
	byRow.Group = Row
	for _, c := range []struct {
		target           Target
		rows, cols, want int
	}{
		{third, 4, 5, 6}, {byRow, 4, 5, 4}, {third, 0, 5, 0}, {Target{}, 4, 5, 0},
		{Target{Pattern: Pattern{1, 4}}, 3, 8, 18}, {Target{Pattern: Pattern{2, 4}, Sparsity: newSparsity(9, 10)}, 3, 8, 12},
	} {
		if got, err := c.target.Pruned(c.rows, c.cols); got != c.want || err != nil {
			t.Errorf("%+v of %d × %d: %d, %v, want %d", c.target, c.rows, c.cols, got, err, c.want)
		}
	}
	if _, err := (Target{Pattern: Pattern{2, 4}}).Pruned(3, 6); err == nil || err.Error() != "6 columns, want a multiple of 4 for pattern 2:4" {
		t.Errorf("error %v", err)
	}
}

// What is taken is in range, prints as something that means the same, and
// counts within one of floating point.
func FuzzParseSparsity(f *testing.F) {
	for _, s := range []string{"50%", "0.5", "62.5%", "1e999", "NaN", "100%", "0.29", "-1", "0.000000000000001%", "99.99999999999999%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var s Sparsity
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(in)), func() { s, err = ParseSparsity(in) })
		if err != nil {
			return
		}
		if v := s.Float64(); !(v >= 0 && v <= 1) || s.num >= s.den() {
			t.Fatalf("%q = %v", in, v)
		}
		if again, err := ParseSparsity(s.String()); again != s || err != nil {
			t.Fatalf("%q prints as %s, which is %v, %v", in, s, again, err)
		}
		for _, n := range []int{0, 1, 100, 4096 * 11008} {
			if got, about := s.CountOf(n), s.Float64()*float64(n); !(float64(got) <= about+1e-6 && float64(got) >= about-1-1e-6) || got > n {
				t.Fatalf("%q of %d: %d, about %v", in, n, got, about)
			}
		}
	})
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"2:4", "1:4", "4:8", "0:4", "4:4", "2:4:8", "02:04", ":", "-1:4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var p Pattern
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(in)), func() { p, err = ParsePattern(in) })
		if err != nil {
			return
		}
		if p.Keep < 1 || p.Keep >= p.Of || p.Of > MaxOf {
			t.Fatalf("%q = %v", in, p)
		}
		if again, err := ParsePattern(p.String()); again != p || err != nil {
			t.Fatalf("%q prints as %s, which is %v, %v", in, p, again, err)
		}
	})
}

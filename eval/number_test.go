package eval

import (
	"encoding/json"
	"math"
	"testing"
)

// Results of a model that was pruned too far: perplexity beyond float64, and no
// likelihood at all.
func TestInfiniteResults(t *testing.T) {
	for _, c := range []struct {
		nll  float64
		want string
	}{
		{1, `{"perplexity":2.718281828459045,"nll":1,"windows":1,"tokens":3,"seqlen":3}`},
		{6524.26, `{"perplexity":null,"nll":6524.26,"windows":1,"tokens":3,"seqlen":3}`},
		{math.Inf(1), `{"perplexity":null,"nll":null,"windows":1,"tokens":3,"seqlen":3}`},
		{math.NaN(), `{"perplexity":null,"nll":null,"windows":1,"tokens":3,"seqlen":3}`},
	} {
		r := result(c.nll, 1, 3)
		text, err := json.Marshal(r)
		if err != nil || string(text) != c.want {
			t.Errorf("%v: %s, %v, want %s", c.nll, text, err, c.want)
		}
		var back Result
		if err := json.Unmarshal(text, &back); err != nil || back != r {
			t.Errorf("%v: read back %+v, %v, want %+v", c.nll, back, err, r)
		}
	}
	for r, want := range map[Result]bool{
		result(1, 2, 3):       true,
		result(6524.26, 2, 3): true,
		{Perplexity: 3, NLL: 1, Windows: 1, Tokens: 3, SeqLen: 3}:                       false,
		{Perplexity: Number(math.Inf(1)), NLL: 1e300, Windows: 1, Tokens: 3, SeqLen: 3}: false,
		{Perplexity: Number(math.Exp(1)), NLL: 1, Windows: 1, Tokens: 4, SeqLen: 3}:     false,
		{}: false,
	} {
		if r.Valid() != want {
			t.Errorf("%+v: Valid = %v", r, !want)
		}
	}
	if got := Number(math.Inf(1)).Text(2) + " " + Number(1.005).Text(1); got != "infinite 1.0" {
		t.Error(got)
	}
}

// The standard error is that of the windows' mean, carried over to the exponential.
func TestStderr(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		nll  []float64
		want float64
	}{
		{[]float64{1, 2, 3}, math.Exp(2) / math.Sqrt(3)}, // s = 1
		{[]float64{2, 2}, 0}, {[]float64{2}, 0}, {[]float64{1, inf}, 0}, {[]float64{1, math.NaN()}, 0},
	} {
		r := resultOf(c.nll, 8)
		if !(math.Abs(r.Stderr-c.want) <= 1e-12*c.want) || r.Windows != len(c.nll) || !r.Valid() {
			t.Errorf("%v: %+v, want a standard error of %v", c.nll, r, c.want)
		}
	}
}

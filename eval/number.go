package eval

import (
	"encoding/json"
	"fmt"
	"math"
)

// Number is a measurement that may be beyond all numbers: a model that finds what
// comes impossible has an infinite perplexity, and one that computes a NaN gives no
// probability at all, which counts as infinite too. JSON has neither and holds null.
type Number float64

// finite is v, or infinity for what is no number.
func finite(v float64) Number {
	if math.IsNaN(v) {
		return Number(math.Inf(1))
	}
	return Number(v)
}

// Infinite reports whether n is beyond all numbers.
func (n Number) Infinite() bool { return math.IsInf(float64(n), 0) || math.IsNaN(float64(n)) }

// MarshalJSON writes a number, or null.
func (n Number) MarshalJSON() ([]byte, error) {
	if n.Infinite() {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (n *Number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = Number(math.Inf(1))
		return nil
	}
	return json.Unmarshal(text, (*float64)(n))
}

// Text is n with so many decimals, for people.
func (n Number) Text(decimals int) string {
	if n.Infinite() {
		return "infinite"
	}
	return fmt.Sprintf("%.*f", decimals, float64(n))
}

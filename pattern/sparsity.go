package pattern

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Sparsity is the share of weights that is pruned, an exact rational number in
// [0, 1). Equal shares compare equal. The zero value is 0.
type Sparsity struct {
	num uint64
	sub uint64 // denominator less one, so that the zero value is 0/1
}

// newSparsity returns num/den in lowest terms; num < den ≤ 10¹⁷.
func newSparsity(num, den uint64) Sparsity {
	a, b := den, num
	for b != 0 {
		a, b = b, a%b
	}
	return Sparsity{num: num / a, sub: den/a - 1}
}

func (s Sparsity) den() uint64 { return s.sub + 1 }

// maxDecimals bounds the digits after the point, so that a share has a
// denominator of at most 10¹⁷ and fits in 64 bits.
const maxDecimals = 15

// ParseSparsity parses "50%", "62.5%" or "0.5": plain decimals without sign
// or exponent, taken exactly, at least 0 and below 1 (100%).
func ParseSparsity(s string) (Sparsity, error) {
	bad := func(why string) (Sparsity, error) {
		return Sparsity{}, fmt.Errorf("sparsity %q: %s; want a share such as 50%% or 0.5, at least 0 and below 1", s, why)
	}
	digits, percent := strings.CutSuffix(s, "%")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || point && fraction == "" || !decimal(whole) || !decimal(fraction) {
		return bad("not a decimal number")
	}
	whole = strings.TrimLeft(whole, "0")
	fraction = strings.TrimRight(fraction, "0")
	switch {
	case len(fraction) > maxDecimals:
		return bad(fmt.Sprintf("more than %d digits after the point", maxDecimals))
	case len(whole) > 2 || !percent && whole != "":
		if !percent && len(whole) <= 2 {
			return bad("not below 1 (did you mean " + s + "%?)")
		}
		return bad("not below 1")
	}
	num, err := strconv.ParseUint("0"+whole+fraction, 10, 64)
	if err != nil {
		return bad("not a decimal number")
	}
	den := uint64(1)
	for range fraction {
		den *= 10
	}
	if percent {
		den *= 100
	}
	return newSparsity(num, den), nil
}

// Round returns x to 15 decimals as an exact share, which must be in [0, 1)
// then, too. Float64 and Round lead from one to the other and back.
func Round(x float64) (Sparsity, error) {
	const den = 1e15
	num := math.Round(x * den)
	if !(num >= 0 && num < den) {
		return Sparsity{}, fmt.Errorf("share %v, want at least 0 and below 1", x)
	}
	return newSparsity(uint64(num), den), nil
}

func decimal(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// CountOf returns ⌊n·s⌋ exactly, for n ≥ 0. It is the one place that rounds:
// in floating point, 29 % of 100 is 28.
func (s Sparsity) CountOf(n int) int {
	if n < 0 {
		panic(fmt.Sprintf("pattern: CountOf: n = %d, want at least 0", n))
	}
	hi, lo := bits.Mul64(uint64(n), s.num)
	count, _ := bits.Div64(hi, lo, s.den()) // num < den, so the quotient is below n
	return int(count)
}

// Float64 returns the float64 next to s.
func (s Sparsity) Float64() float64 { return float64(s.num) / float64(s.den()) }

// String returns s in percent: exactly where it has a finite decimal, which
// ParseSparsity then takes, and else (2/3 of a 1:3 pattern) to 15 digits.
func (s Sparsity) String() string {
	num, den := s.num*100, s.den() // num < 10¹⁹
	text := strconv.FormatUint(num/den, 10)
	rest := num % den
	if rest == 0 {
		return text + "%"
	}
	text += "."
	for range maxDecimals {
		rest *= 10
		text += string(rune('0' + rest/den))
		if rest %= den; rest == 0 {
			break
		}
	}
	return text + "%"
}

package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// naiveAttention is Attention.Run in float64, and a bound for its error: that
// of the scores (a dot product each, the cap and the rounding of the exponent)
// goes through the softmax, then that of the weighted sum. With bfloat set, q,
// k and v hold bfloat16: sums of products are off by twice as much, exponents
// are rounded once more, and weights are bfloat16.
func naiveAttention(a Attention, q, k, v []float32, tokens, keys int, bfloat bool) (want, tol []float64) {
	u, weightErr := 1.0/(1<<24), expError
	if bfloat {
		u, weightErr = 2.0/(1<<24), 1.0/(1<<13)+1.0/(1<<8)
	}
	group, d := a.Heads/a.KVHeads, a.HeadDim
	want = make([]float64, tokens*a.Heads*d)
	tol = make([]float64, len(want))
	for t := range tokens {
		for h := range a.Heads {
			p := keys - tokens + t
			lo := 0
			if a.Window > 0 {
				lo = max(0, p-a.Window+1)
			}
			s := make([]float64, p+1)
			var scoreErr float64
			for j := lo; j <= p; j++ {
				var abs float64
				for i := range d {
					x := float64(q[(t*a.Heads+h)*d+i]) * float64(k[(j*a.KVHeads+h/group)*d+i]) * float64(a.Scale)
					s[j] += x
					abs += math.Abs(x)
				}
				e := (float64(d) + 3) * u * abs
				if a.SoftCap > 0 {
					s[j] = float64(a.SoftCap) * math.Tanh(s[j]/float64(a.SoftCap))
					e += float64(a.SoftCap) / (1 << 22)
				}
				scoreErr = max(scoreErr, e+4*u*math.Abs(s[j]))
			}
			top := slices.Max(s[lo:])
			var sum float64
			for j := lo; j <= p; j++ {
				s[j] = math.Exp(s[j] - top)
				sum += s[j]
			}
			for i := range d {
				var abs float64
				at := (t*a.Heads+h)*d + i
				for j := lo; j <= p; j++ {
					x := s[j] / sum * float64(v[(j*a.KVHeads+h/group)*d+i])
					want[at] += x
					abs += math.Abs(x)
				}
				// Numerator and denominator err by the same two terms.
				tol[at] = 2 * abs * (2*scoreErr + weightErr + float64(p+1-lo+8)*u)
			}
		}
	}
	return want, tol
}

func attentionCases() map[string]struct {
	Attention
	tokens, keys int
} {
	type c = struct {
		Attention
		tokens, keys int
	}
	cases := map[string]c{
		"one token":        {Attention{4, 4, 64, 0.125, 0, 0}, 1, 1},
		"decode":           {Attention{4, 2, 64, 0.125, 0, 0}, 1, 301},
		"grouped":          {Attention{6, 2, 20, 0.3, 0, 0}, 70, 70},
		"several tiles":    {Attention{2, 1, 32, 0.2, 0, 0}, 300, 700},
		"window 1":         {Attention{2, 2, 16, 0.25, 1, 0}, 40, 45},
		"window":           {Attention{2, 1, 16, 0.25, 37, 0}, 290, 600},
		"window of a tile": {Attention{2, 1, 16, 0.25, keyTile, 0}, 290, 600},
		"cap":              {Attention{2, 1, 16, 2, 0, 5}, 90, 120},
		"cap and window":   {Attention{4, 2, 24, 1, 50, 30}, 130, 131},
		"wide head":        {Attention{2, 1, 401, 0.05, 0, 0}, 50, 60},
		"steep":            {Attention{2, 2, 64, 8, 0, 0}, 100, 100},
	}
	for n := range 131 {
		cases[fmt.Sprintf("tokens %d", n)] = c{Attention{2, 1, 1 + n%40, 0.2, n % 3 * 9, 0}, n, n + n%5}
	}
	return cases
}

func TestAttentionEqualsNaive(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		testAttention(t, false)
		if cpu.AVX512BF16 {
			testAttention(t, true)
		}
	})
}

// testAttention gives the keys to KeyValues in pieces of several sizes; all must
// end in the same bits, and those must be right.
func testAttention(t *testing.T, bfloat bool) {
	for name, c := range attentionCases() {
		rng := rand.New(rand.NewPCG(3, uint64(c.tokens)))
		off := c.tokens % 8
		random := func(n int) field[float32] {
			x := normal(rng, n)
			if bfloat {
				roundBF16(x, slices.Clone(x))
			}
			return place32(off, x)
		}
		width := c.KVHeads * c.HeadDim
		q, k, v := random(c.tokens*c.Heads*c.HeadDim), random(c.keys*width), random(c.keys*width)
		want, tol := naiveAttention(c.Attention, q.values, k.values, v.values, c.tokens, c.keys, bfloat)
		kv := NewKeyValues(c.KVHeads, c.HeadDim, bfloat)
		for _, piece := range []int{c.keys, 1, 33, 150} {
			kv.Reset()
			for i := 0; i < c.keys; i += piece {
				n := min(piece, c.keys-i)
				kp, vp := place32(off, k.values[i*width:(i+n)*width]), place32(7-off, v.values[i*width:(i+n)*width])
				kv.Append(kp.values, vp.values, n)
				intact(t, "keys and values", kp.same() && vp.same())
			}
			out := place32(7-off, make([]float32, len(q.values)))
			dst := out.values
			c.Run(dst, q.values, kv, c.tokens)
			intact(t, name, out.guarded() && q.same())
			for i, w := range want {
				if !(math.Abs(float64(dst[i])-w) <= tol[i]) {
					t.Errorf("%s: bfloat %v, pieces of %d: dst[%d] = %g, want %g ± %g", name, bfloat, piece, i, dst[i], w, tol[i])
					break
				}
			}
		}
	}
}

// TestKeyValuesAreShared lets two sequences go on from one beginning, which
// must not see each other's tokens, nor any that memory held before.
func TestKeyValuesAreShared(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		for _, bfloat := range []bool{false, true} {
			for _, begin := range []int{1, 5, keyTile - 1, keyTile, 2*keyTile + 3} {
				testSharing(t, bfloat, begin)
			}
		}
	})
}

func testSharing(t *testing.T, bfloat bool, begin int) {
	a := Attention{Heads: 2, KVHeads: 2, HeadDim: 36, Scale: 0.2}
	const more = 9
	width := a.KVHeads * a.HeadDim
	rng := rand.New(rand.NewPCG(5, uint64(begin)))
	random := func() []float32 {
		s, _ := testSource(rng, "f32", (begin+more)*width)
		return s.F32
	}
	k, v, other, q := random(), random(), random(), random()[:more*width]
	whole := NewKeyValues(a.KVHeads, a.HeadDim, bfloat)
	whole.Append(k, v, begin+more)
	want := make([]float32, more*width)
	a.Run(want, q, whole, more)

	first, second := NewKeyValues(a.KVHeads, a.HeadDim, bfloat), NewKeyValues(a.KVHeads, a.HeadDim, bfloat)
	nan := slices.Repeat([]float32{float32(math.NaN())}, (begin+more)*width)
	second.Append(nan, nan, begin+more) // lost by what follows
	first.Append(k, v, begin)
	second.CopyFrom(first, first.Len())
	third := NewKeyValues(1, 4, bfloat) // of another kind
	third.Append(nan, nan, 3)
	third.CopyFrom(first, first.Len())
	first.Append(other, other, more)
	third.Append(other[:more*width], other, more)
	second.Append(k[begin*width:], v[begin*width:], more)
	check := func(what string) {
		t.Helper()
		got := make([]float32, more*width)
		a.Run(got, q, second, more)
		if !slices.EqualFunc(got, want, sameFloat) {
			t.Errorf("bfloat %v, %d shared, %s: not what the whole sequence gives", bfloat, begin, what)
		}
	}
	check("after both went on")
	longer := NewKeyValues(a.KVHeads, a.HeadDim, bfloat)
	longer.Append(k, v, begin)
	longer.Append(nan, nan, more)
	was := second
	second = NewKeyValues(a.KVHeads, a.HeadDim, bfloat)
	second.CopyFrom(longer, begin)
	second.Append(k[begin*width:], v[begin*width:], more)
	check("from the middle of another")
	second = was
	first.Reset()
	first.Append(other, other, begin+more)
	check("after the first began anew")
	if !third.Holds(a.KVHeads, a.HeadDim, bfloat) || third.Len() != begin+more {
		t.Errorf("bfloat %v: a copy of another kind has %d tokens, want %d of the kind it was copied from", bfloat, third.Len(), begin+more)
	}
	if got := second.Len(); got != begin+more {
		t.Errorf("%d tokens, want %d", got, begin+more)
	}
}

func TestAttentionDoesNotDependOnWorkers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	eachProductLevel(t, func(t *testing.T) {
		a := Attention{4, 2, 48, 0.15, 0, 0}
		const tokens, keys = 300, 320
		rng := rand.New(rand.NewPCG(4, 0))
		q, _ := testSource(rng, "f32", tokens*4*48)
		kv, _ := testSource(rng, "f32", keys*2*48)
		var first []float32
		for _, workers := range []int{1, 2, 5} {
			runtime.GOMAXPROCS(workers)
			got := make([]float32, len(q.F32))
			packed := NewKeyValues(2, 48, true)
			packed.Append(kv.F32, kv.F32, keys)
			a.Run(got, q.F32, packed, tokens)
			if first == nil {
				first = got
			} else if !slices.EqualFunc(got, first, sameFloat) {
				t.Errorf("%d workers change the result", workers)
			}
		}
	})
}

func TestAttentionPanicsOnWrongShapes(t *testing.T) {
	buf := make([]float32, 64)
	kv := NewKeyValues(1, 4, false)
	kv.Append(buf, buf, 2)
	for name, f := range map[string]func(){
		"fewer keys":   func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 1}.Run(buf, buf, kv, 3) },
		"heads":        func() { Attention{Heads: 3, KVHeads: 2, HeadDim: 4, Scale: 1}.Run(buf, buf, kv, 1) },
		"other heads":  func() { Attention{Heads: 2, KVHeads: 2, HeadDim: 4, Scale: 1}.Run(buf, buf, kv, 1) },
		"other width":  func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 6, Scale: 1}.Run(buf, buf, kv, 1) },
		"no scale":     func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4}.Run(buf, buf, kv, 1) },
		"no heads":     func() { Attention{HeadDim: 4, Scale: 1}.Run(buf, buf, kv, 1) },
		"short query":  func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 1}.Run(buf, buf[:7], kv, 1) },
		"short result": func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 1}.Run(buf[:7], buf, kv, 1) },
		"short value":  func() { NewKeyValues(1, 4, false).Append(buf, buf[:7], 2) },
		"no width":     func() { NewKeyValues(1, 0, false) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestExpBF16EqualsReference(t *testing.T) {
	if !cpu.AVX512BF16 {
		t.Skip("no AVX512_BF16 in this processor or build")
	}
	for n := 16; n <= 272; n += 16 {
		for offset := range 8 {
			testExpBF16(t, n, offset)
		}
	}
	if sum := expBF16(make([]uint16, 16), slices.Repeat([]float32{nan}, 16), 1, 0); sum == sum {
		t.Errorf("sum of NaN = %g", sum)
	}
}

func testExpBF16(t *testing.T, n, offset int) {
	rng := rand.New(rand.NewPCG(7, uint64(n)))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.Float64()*160-159) / 2
	}
	values[n/2] = -inf
	const scale, top = 2, 3
	s, dst := place32(offset, values), place(7-offset, make([]uint16, n), bf16NaN)
	sum := expBF16(dst.values, s.values, scale, top)
	intact(t, "expBF16", dst.guarded() && s.same())
	var want float64
	got := make([]float32, n)
	WidenBF16(got, dst.values)
	for i, v := range values {
		e := math.Exp(float64(scale*v - top))
		want += e
		// The argument, up to 163 in size, is rounded three times.
		if tol := e * (1.0/(1<<8) + 1.0/(1<<13) + 3*163.0/(1<<24)); !(math.Abs(float64(got[i])-e) <= tol+0x1p-126) {
			t.Fatalf("n=%d: exp(%g) = %g, want %g ± %g", n, scale*v-top, got[i], e, tol)
		}
	}
	if tol := want * (1.0/(1<<13) + (3*163.0+float64(n))/(1<<24)); !(math.Abs(float64(sum)-want) <= tol) {
		t.Fatalf("n=%d: sum %g, want %g ± %g", n, sum, want, tol)
	}
}

func TestCapRowEqualsReference(t *testing.T) {
	const scale, limit = 0.3, 5
	sweepProducts(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(rng.NormFloat64() * math.Exp(8*rng.Float64()-4))
		}
		if n > 3 {
			values[0], values[1], values[2] = inf, -inf, nan
		}
		s := place32(offset, values)
		capRow(s.values, scale, limit)
		intact(t, "s", s.guarded())
		for i, v := range values {
			want := limit * math.Tanh(scale*float64(v)/limit)
			near(t, fmt.Sprintf("cap of %g", v), s.values[i], want, limit*0x1p-22)
		}
	})
}

func TestScaledRowsEqualReference(t *testing.T) {
	sweepProducts(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		const f = 0.37
		x, y := place32(offset, normal(rng, n)), normal(rng, n)
		scaled, added := place32(7-offset, make([]float32, n)), place32(3, y)
		scaleTo(scaled.values, x.values, f)
		AddScaled(added.values, x.values, f)
		intact(t, "outputs", scaled.guarded() && added.guarded())
		intact(t, "x", x.same())
		for i, v := range x.values {
			equal(t, "scaled", scaled.values[i], v*f)
			want := float64(y[i]) + f*float64(v)
			near(t, "added", added.values[i], want, (math.Abs(want)+math.Abs(f*float64(v)))*0x1p-23)
		}
	})
}

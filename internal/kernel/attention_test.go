package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// naiveAttention is Attention.Run in float64, and a bound for its float32
// error: that of the scores (a dot product each, the cap and the rounding of
// the exponent) goes through the softmax, then that of the weighted sum.
func naiveAttention(a Attention, q, k, v []float32, tokens, keys int) (want, tol []float64) {
	const u = 1.0 / (1 << 24)
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
				tol[at] = 2 * abs * (2*scoreErr + expError + float64(p+1-lo+8)*u)
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
		for name, c := range attentionCases() {
			rng := rand.New(rand.NewPCG(3, uint64(c.tokens)))
			off := c.tokens % 8
			random := func(n int) []float32 {
				s, _ := testSource(rng, "f32", n+off)
				return s.F32[off:]
			}
			q := random(c.tokens * c.Heads * c.HeadDim)
			k := random(c.keys * c.KVHeads * c.HeadDim)
			v := random(c.keys * c.KVHeads * c.HeadDim)
			q0, k0, v0 := slices.Clone(q), slices.Clone(k), slices.Clone(v)
			dst, intact := guarded(len(q), off, guardNaN, sameFloat)
			c.Run(dst, q, k, v, c.tokens, c.keys)
			if err := intact(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !slices.Equal(q, q0) || !slices.Equal(k, k0) || !slices.Equal(v, v0) {
				t.Errorf("%s: an operand was changed", name)
			}
			want, tol := naiveAttention(c.Attention, q, k, v, c.tokens, c.keys)
			for i, w := range want {
				if !(math.Abs(float64(dst[i])-w) <= tol[i]) {
					t.Errorf("%s: dst[%d] = %g, want %g ± %g", name, i, dst[i], w, tol[i])
					break
				}
			}
		}
	})
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
			a.Run(got, q.F32, kv.F32, kv.F32, tokens, keys)
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
	for name, f := range map[string]func(){
		"fewer keys":  func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 1}.Run(buf, buf, buf, buf, 3, 2) },
		"heads":       func() { Attention{Heads: 3, KVHeads: 2, HeadDim: 4, Scale: 1}.Run(buf, buf, buf, buf, 1, 1) },
		"no scale":    func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4}.Run(buf, buf, buf, buf, 1, 1) },
		"no heads":    func() { Attention{HeadDim: 4, Scale: 1}.Run(buf, buf, buf, buf, 1, 1) },
		"short query": func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 1}.Run(buf, buf[:7], buf, buf, 1, 1) },
		"short value": func() { Attention{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 1}.Run(buf, buf, buf, buf[:7], 1, 2) },
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

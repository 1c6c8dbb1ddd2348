package tensor

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// [1 0 −0; 0 0 NaN], by hand: −0 is kept and comes back.
func TestPackByHand(t *testing.T) {
	w := NewWeight(F32, 2, 3)
	copy(w.w32, []float32{1, 0, float32(math.Copysign(0, -1)), 0, 0, float32(math.NaN())})
	p := Pack(w)
	if !slices.Equal(p.Mask(), []byte{5, 4}) || !slices.Equal(p.First(), []int64{0, 2, 3}) || p.Kept() != 3 || w.Kept() != 3 || p.Bytes() != 2+24+12 {
		t.Errorf("mask %v, rows from %v, %d values, %d bytes", p.Mask(), p.First(), p.Kept(), p.Bytes())
	}
	got := NewWeight(F32, 2, 3)
	p.Expand(got, 0)
	if !bytes.Equal(got.Bytes(), w.Bytes()) {
		t.Errorf("%v becomes %v", w.w32, got.w32)
	}
}

// Every width and share of zeros, of every type, comes back to the bit, also from
// rows in the middle, and whole weights by their parts.
func TestPackExpands(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	for _, dtype := range []DType{F32, F16, BF16} {
		for cols := range 301 {
			density := []float64{0, 0.3, 0.5, 0.99, 1}[cols%5]
			w := NewWeight(dtype, 5, cols)
			for k := range 5 * cols {
				if rng.Float64() < density {
					w.Bytes()[k*dtype.Size()] = byte(1 + rng.IntN(255))
				}
			}
			p := Pack(w)
			if err := p.Check(); err != nil {
				t.Fatalf("%v, %d columns: %v", dtype, cols, err)
			}
			got := NewWeight(dtype, 3, cols)
			p.Expand(got, 1)
			part := NewWeight(dtype, 2, cols)
			p.Slice(2, 5).Expand(part, 1)
			if !bytes.Equal(got.Bytes(), w.Slice(1, 4).Bytes()) || !bytes.Equal(part.Bytes(), w.Slice(3, 5).Bytes()) {
				t.Fatalf("%v, %d columns of density %v: other bits", dtype, cols, density)
			}
		}
	}
}

func TestPackedChecks(t *testing.T) {
	w := NewWeight(BF16, 3, 11)
	w.w16[0], w.w16[13], w.w16[32] = 1, 2, 3
	for want, damage := range map[string]func(p *Packed){
		"row 1: the mask has bits past column 11": func(p *Packed) { p.Mask()[3] |= 8 },
		"row 2: values from 3 on":                 func(p *Packed) { p.First()[2]++ },
		"3 values, the mask has 4 bits":           func(p *Packed) { p.Mask()[4] |= 2 },
		"row 0: values from 1 on":                 func(p *Packed) { p.First()[0] = 1 },
	} {
		p := Pack(w)
		damage(p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestPackedFirstNonFinite(t *testing.T) {
	w := NewWeight(BF16, 4, 9)
	for k := range w.w16 {
		w.w16[k] = uint16(k % 3)
	}
	if _, _, _, ok := Pack(w).FirstNonFinite(); ok {
		t.Error("finite weights are not")
	}
	w.w16[2*9+5] = 0x7f80
	row, col, v, ok := Pack(w).FirstNonFinite()
	if !ok || row != 2 || col != 5 || !math.IsInf(float64(v), 1) {
		t.Errorf("[%d %d] %v, want [2 5] +Inf", row, col, v)
	}
}

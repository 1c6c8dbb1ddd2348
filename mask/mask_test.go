package mask

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

var dtypes = []tensor.DType{tensor.F32, tensor.F16, tensor.BF16}

// randomWeight returns a weight of any bits, NaN and −0 among them.
func randomWeight(rng *rand.Rand, dtype tensor.DType, rows, cols int) *tensor.Weight {
	w := tensor.NewWeight(dtype, rows, cols)
	for i, b := 0, w.Bytes(); i < len(b); i++ {
		b[i] = byte(rng.Uint32())
	}
	return w
}

// What is kept keeps its bits, what is pruned is +0.
func TestApply(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 0))
	for _, level := range cpu.Levels() {
		restore := cpu.Use(level)
		for _, dtype := range dtypes {
			for _, shape := range [][2]int{{0, 0}, {1, 1}, {70, 3}, {5, 64}, {67, 203}} {
				rows, cols := shape[0], shape[1]
				scores := make([]float32, rows*cols)
				for i := range scores {
					scores[i] = rng.Float32()
				}
				m := mustSelect(t, scores, rows, cols, pattern.Target{Sparsity: sparsity(t, "60%")})
				w := randomWeight(rng, dtype, rows, cols)
				want := bytes.Clone(w.Bytes())
				for k := range rows * cols {
					if !m.Kept(k/cols, k%cols) {
						clear(want[k*dtype.Size() : (k+1)*dtype.Size()])
					}
				}
				m.Apply(w)
				if !bytes.Equal(w.Bytes(), want) {
					t.Errorf("%v %v %v: wrong weights", level, dtype, shape)
				}
			}
		}
		restore()
	}
}

func TestApplyPanicsOnShape(t *testing.T) {
	defer func() {
		if got, want := recover(), "mask: Apply: weight of 2 × 3, want 3 × 2"; got != want {
			t.Errorf("panic %v, want %s", got, want)
		}
	}()
	newMask(3, 2).Apply(tensor.NewWeight(tensor.F32, 2, 3))
}

// A pruned weight holds its target; with one zero less than it has to have it
// does not, and the error says where.
func TestVerify(t *testing.T) {
	const rows, cols = 6, 24
	for name, target := range map[string]pattern.Target{
		": 1 pruned, want at least 2 (pattern 2:4)":     {Pattern: pattern.Pattern{Keep: 2, Of: 4}},
		": 6 pruned, want at least 7 (pattern 1:8)":     {Pattern: pattern.Pattern{Keep: 1, Of: 8}},
		": 13 pruned, want at least 14 (60% of 24)":     {Sparsity: sparsity(t, "60%"), Group: pattern.Row},
		"85 pruned, want at least 86 (60% of 6 × 24)":   {Sparsity: sparsity(t, "60%")},
		"84 pruned, want at least 85 (59.5% of 6 × 24)": {Sparsity: sparsity(t, "59.5%")},
		": 13 pruned, want at least 14 (59.5% of 24)":   {Sparsity: sparsity(t, "59.5%"), Group: pattern.Row, Level: true},
	} {
		for _, dtype := range dtypes {
			w := tensor.NewWeight(dtype, rows, cols)
			for i, b := 0, w.Bytes(); i < len(b); i++ {
				b[i] = 0x33 // none is zero
			}
			dense := NonZero(w)
			m := mustSelect(t, fill("normal", 5, rows*cols), rows, cols, target)
			m.Apply(w)
			if err := m.Verify(target, Exactly); err != nil {
				t.Error(err)
			}
			if err := NonZero(w).Verify(target, AtLeast); err != nil {
				t.Errorf("%v: %v", dtype, err)
			}
			if fresh := dense.Without(NonZero(w)); !slices.Equal(fresh.bits, m.bits) || fresh.Verify(target, AtMost) != nil {
				t.Errorf("%v: %s was pruned, want %s", dtype, grid(fresh), grid(m))
			}
			for k := range rows * cols {
				i, j := k/cols, k%cols
				if m.Kept(i, j) {
					continue
				}
				at := w.Bytes()[k*dtype.Size() : (k+1)*dtype.Size()]
				at[len(at)-1] = 0x80 // −0 is a zero too
				if err := NonZero(w).Verify(target, AtLeast); err != nil {
					t.Errorf("%v with −0: %v", dtype, err)
				}
				at[len(at)-1] = 0x33
				if y, x, extra := NonZero(w).Extra(m); !extra || y != i || x != j {
					t.Errorf("%v: [%d, %d] beyond the mask (%v), want [%d, %d]", dtype, y, x, extra, i, j)
				}
				if target.Level && target.PrunedInRow(i, cols) != 14 {
					w.Zero(k)
					continue
				}
				err := NonZero(w).Verify(target, AtLeast)
				if err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("%v without the zero at [%d, %d]: error %v, want %q", dtype, i, j, err, name)
				}
				if NonZero(w).Verify(target, Exactly) == nil || NonZero(w).Verify(target, AtMost) != nil {
					t.Errorf("%v without the zero at [%d, %d]: exactly so many, or more", dtype, i, j)
				}
				if p := target.Pattern; p.Of != 0 {
					j -= j % p.Of
					if want := fmt.Sprintf("weights [%d, %d] to [%d, %d]: ", i, j, i, j+p.Of-1); !strings.HasPrefix(err.Error(), want) {
						t.Errorf("error %v, want %s", err, want)
					}
					if HoldsNM(w, p) {
						t.Errorf("%v: HoldsNM without the zero at [%d, %d]", dtype, i, j)
					}
				} else if target.Group == pattern.Row && !strings.HasPrefix(err.Error(), fmt.Sprintf("row %d: ", i)) {
					t.Errorf("error %v, want row %d", err, i)
				}
				w.Zero(k)
			}
			if _, _, extra := NonZero(w).Extra(m); extra {
				t.Errorf("%v: something beyond the mask", dtype)
			}
		}
	}
}

// One weight pruned beside those of a target is more than at most so many, in its
// group, also where the groups are of columns in another order.
func TestVerifyAtMost(t *testing.T) {
	const rows, cols = 6, 24
	order := rand.New(rand.NewPCG(7, 0)).Perm(cols)
	nm := pattern.Pattern{Keep: 2, Of: 4}
	for _, target := range []pattern.Target{
		{Pattern: nm}, {Sparsity: sparsity(t, "50%")}, {Sparsity: sparsity(t, "50%"), Group: pattern.Row},
	} {
		for _, order := range [][]int{nil, order} {
			if order != nil && target.Pattern != nm {
				continue
			}
			scores := fill("normal", 6, rows*cols)
			m := mustSelect(t, scores, rows, cols, target)
			if order != nil {
				var err error
				if m, err = SelectIn(scores, rows, cols, nm, order); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Verify(target, AtMost); err != nil {
				t.Error(err)
			}
			for k := range rows * cols {
				if i, j := k/cols, k%cols; m.Kept(i, j) {
					m.row(i)[j/64] &^= 1 << (j % 64)
					err := m.Verify(target, AtMost)
					if err == nil || !strings.Contains(err.Error(), "want at most") {
						t.Errorf("%+v, [%d, %d] pruned beside: error %v", target, i, j, err)
					}
					if order != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("row %d, columns [", i)) {
						t.Errorf("error %v, want row %d and its columns", err, i)
					}
					m.row(i)[j/64] |= 1 << (j % 64)
				}
			}
			if m.Order = append(m.Order, 3); target.Pattern == nm && m.Verify(target, AtMost) == nil {
				t.Error("a column that is twice in the order")
			}
		}
	}
}

func TestHoldsNM(t *testing.T) {
	w := tensor.NewWeight(tensor.F32, 2, 8)
	copy(w.Source().F32, []float32{
		1, 0, 0, 1, 0, 0, 1, 1,
		0, 0, 0, 0, 1, 0, 1, 0,
	})
	for p, want := range map[pattern.Pattern]bool{
		{Keep: 2, Of: 4}: true, {Keep: 1, Of: 4}: false, {Keep: 4, Of: 8}: true, {Keep: 3, Of: 8}: false,
		{Keep: 1, Of: 2}: false, {Keep: 2, Of: 3}: false, {}: false,
	} {
		if got := HoldsNM(w, p); got != want {
			t.Errorf("%v: %v, want %v", p, got, want)
		}
	}
	if err := NonZero(w).Verify(pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 3}}, AtLeast); err == nil {
		t.Error("Verify: 8 columns in groups of 3")
	}
}

func TestExchange(t *testing.T) {
	m := mustSelect(t, []float32{2, 2, 2, 9, 5, 0, 1, 4}, 2, 4, pattern.Target{Sparsity: sparsity(t, "50%")})
	m.Exchange(1, 0, 2)
	if got := grid(m); got != "..## ..##" || m.Pruned() != 4 {
		t.Errorf("%s, %d pruned", got, m.Pruned())
	}
	for _, c := range [][3]int{{0, 0, 1}, {0, 2, 3}, {0, 2, 2}} {
		func() {
			defer func() {
				if r := recover(); r == nil {
					t.Errorf("row %d: pruning %d and keeping %d does not panic", c[0], c[1], c[2])
				}
			}()
			m.Exchange(c[0], c[1], c[2])
		}()
	}
	if got := grid(m); got != "..## ..##" {
		t.Errorf("refused, but now %s", got)
	}
}

package golden

import (
	"math"
	"testing"
)

// recorder is a testing.TB that notes a failure instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestCompare(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name      string
		got, want []float64
		tol       Tolerance
		fails     bool
	}{
		{"equal", []float64{1, 2}, []float64{1, 2}, Tolerance{}, false},
		{"at the bound", []float64{1.5}, []float64{1}, Tolerance{Abs: 0.5}, false},
		{"over it", []float64{1.75}, []float64{1}, Tolerance{Abs: 0.5}, true},
		{"relative", []float64{-11}, []float64{-10}, Tolerance{Rel: 0.125}, false},
		{"over relative", []float64{-12}, []float64{-10}, Tolerance{Rel: 0.125}, true},
		{"NaN got", []float64{0, nan, 0}, []float64{0, 0, 0}, Tolerance{Abs: 1}, true},
		{"NaN wanted", []float64{0}, []float64{nan}, Tolerance{Abs: 1}, true},
		{"infinite", []float64{inf}, []float64{0}, Tolerance{Abs: 1}, true},
		{"shorter", []float64{1}, []float64{1, 2}, Tolerance{Abs: 9}, true},
	} {
		r := &recorder{TB: t}
		Compare(r, c.name, c.got, c.want, c.tol)
		if r.failed != c.fails {
			t.Errorf("%s: failed is %v, want %v", c.name, r.failed, c.fails)
		}
	}
}

func TestMaxAbsKeepsNaN(t *testing.T) {
	if got := MaxAbs([]float32{1, 2, 3}, []float32{1, 4, 2}); !(got == 2) {
		t.Errorf("got %v, want 2", got)
	}
	if got := MaxAbs([]float64{math.NaN(), 2}, []float64{1, 4}); !math.IsNaN(got) {
		t.Errorf("got %v, want NaN", got)
	}
}

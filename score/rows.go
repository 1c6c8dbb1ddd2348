package score

import (
	"fmt"
	"math"
	"sync"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// panelCols is how many columns are worked on at a time: a row of a panel as
// float32, and the vectors that belong to its columns, stay in the first-level
// cache.
const panelCols = 1024

// rowStrip is how many rows one task owns. Sums over rows are split into
// strips of this size, whatever the number of threads.
const rowStrip = 64

// rowsAhead is how many rows ahead weights and scores are fetched into the cache
// where a panel is narrower than the processor's own fetching takes to begin.
const rowsAhead = 2

// segment returns elements lo to hi-1 of the row-major w as float32: in buf,
// or in place where w is float32.
func segment(buf []float32, w kernel.Source, lo, hi int) []float32 {
	if w.F32 != nil {
		return w.F32[lo:hi]
	}
	buf = buf[:hi-lo]
	if w.BF16 != nil {
		kernel.WidenBF16(buf, w.BF16[lo:hi])
	} else {
		kernel.WidenF16(buf, w.F16[lo:hi])
	}
	return buf
}

// eachSegment calls f on all elements of w as float32, x being those of row i
// that begin at column j. Strips of rows run in parallel.
func eachSegment(w *tensor.Weight, f func(x []float32, i, j int)) {
	src := w.Source()
	parallel.For(w.Rows, rowStrip, func(lo, hi int) {
		buf := buffers.Get().(*[panelCols]float32)
		defer buffers.Put(buf)
		for i := lo; i < hi; i++ {
			for j := 0; j < w.Cols; j += panelCols {
				end := min(j+panelCols, w.Cols)
				f(segment(buf[:], src, i*w.Cols+j, i*w.Cols+end), i, j)
			}
		}
	})
}

var buffers = sync.Pool{New: func() any { return new([panelCols]float32) }}

// absSums returns R_i and C_j, summed in float64: a row in 16 interleaved
// parts, a column in strips of rowStrip rows that are then added in order.
// The relative error is below (in + out)·2⁻⁵³.
func absSums(w *tensor.Weight) (row, col []float64, err error) {
	src := w.Source()
	strips := ceil(w.Rows, rowStrip)
	row, col = make([]float64, w.Rows), make([]float64, w.Cols)
	parts := make([]float64, strips*w.Cols)
	parallel.For(strips, 1, func(s, _ int) {
		buf := buffers.Get().(*[panelCols]float32)
		defer buffers.Put(buf)
		var lanes [rowStrip][kernel.AbsSumLanes]float64
		part := parts[s*w.Cols : (s+1)*w.Cols]
		lo, hi := s*rowStrip, min((s+1)*rowStrip, w.Rows)
		for j := 0; j < w.Cols; j += panelCols {
			end := min(j+panelCols, w.Cols)
			for i := lo; i < hi; i++ {
				from, to := i*w.Cols+j, i*w.Cols+end
				if src.BF16 != nil {
					kernel.AbsSumsBF16(part[j:end], &lanes[i-lo], src.BF16[from:to], rowsAhead*w.Cols)
				} else {
					kernel.AbsSums(part[j:end], &lanes[i-lo], segment(buf[:], src, from, to), rowsAhead*w.Cols)
				}
			}
		}
		for i := lo; i < hi; i++ {
			for _, v := range lanes[i-lo] {
				row[i] += v
			}
		}
	})
	for i, v := range row {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, nil, notFinite(w, i)
		}
	}
	for s := range strips {
		for j, v := range parts[s*w.Cols : (s+1)*w.Cols] {
			col[j] += v
		}
	}
	return row, col, nil
}

// notFinite names the first weight of row i or after that is NaN or infinite.
func notFinite(w *tensor.Weight, i int) error {
	for ; i < w.Rows; i++ {
		for j := range w.Cols {
			if v := float64(w.At(i, j)); math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("weight [%d, %d] is %v, want a finite number", i, j, v)
			}
		}
	}
	panic("score: notFinite: all weights are finite")
}

// overSums returns c/sums[j] as float32, and 0 for a sum of 0. A sum that is
// so small that the quotient does not fit counts as the smallest whose
// quotient fits.
func overSums(c float64, sums []float64) []float32 {
	out := make([]float32, len(sums))
	for j, s := range sums {
		if s > 0 {
			out[j] = float32(min(c/s, math.MaxFloat32/4))
		}
	}
	return out
}

// addTo adds c, rounded to float32, to every element of x.
func addTo(x []float32, c float64) {
	if c == 0 {
		return
	}
	for i := range x {
		x[i] += float32(c)
	}
}

// scaled writes |W_ij|·s_j.
func scaled(dst []float32, w *tensor.Weight, s []float32) error {
	top := make([]uint32, w.Rows)
	eachSegment(w, func(x []float32, i, j int) {
		k := i*w.Cols + j
		top[i] = max(top[i], kernel.ScaleAbs(dst[k:k+len(x)], x, s[j:j+len(x)]))
	})
	for i, bits := range top {
		if bits >= kernel.InfBits {
			return notFinite(w, i)
		}
	}
	return nil
}

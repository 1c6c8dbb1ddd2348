package rotated

import (
	"context"
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// partBytes is how much of an embedding or a head is turned at a time.
const partBytes = 32 << 20

// write writes every tensor, turned.
func (r *rotator) write(ctx context.Context, t *turns) error {
	f := r.frame
	total := r.inv.WeightBytes()
	norms := map[string]bool{}
	if r.stream {
		for _, n := range f.Norms {
			norms[n] = true
		}
	}
	bar := r.in.Progress.Start("rotate: write", total, "bytes")
	for _, src := range r.inv.Tensors() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		switch {
		case norms[src.Name]:
			err = r.writeUnit(src)
		case r.stream && (src.Name == f.Embedding.Name || src.Name == f.Head.Name):
			err = r.writeRows(src.Name, src, t)
			if err == nil && r.untied != "" {
				err = r.writeRows(r.untied, src, t)
			}
		case r.turns(src.Name):
			err = r.writeTurned(src, t)
		default:
			err = r.w.CopyTensor(src.Name)
		}
		if err != nil {
			return err
		}
		bar.Add(src.Size)
	}
	return nil
}

// turns reports whether the tensor of a block meets what is turned.
func (r *rotator) turns(name string) bool {
	if _, ok := r.frame.Axes[name]; ok && r.stream {
		return true
	}
	if !r.opt.Values {
		return false
	}
	for _, h := range r.frame.Heads {
		if h.Fixed == nil && (name == h.V || name == h.Bias || name == h.O) {
			return true
		}
	}
	return false
}

// writeUnit writes a norm that multiplies with 1.
func (r *rotator) writeUnit(src checkpoint.Tensor) error {
	row := tensor.NewMatrix(1, int(src.Elements()))
	for j := range row.Data {
		row.Data[j] = r.m.UnitGain()
	}
	return r.w.WriteTensor(src.Name, weightOf(src.DType, row).Bytes())
}

// writeRows writes the embedding or the head, as name says, of the matrix src, a part
// of its rows at a time.
func (r *rotator) writeRows(name string, src checkpoint.Tensor, t *turns) error {
	norm := ""
	if strings.HasPrefix(name, "lm_head.") {
		norm = r.frame.Final()
	}
	gain, err := r.gain(norm)
	if err != nil {
		return err
	}
	cols := src.Shape[1]
	bytes := int64(cols * src.DType.Size())
	rows := max(1, partBytes/bytes)
	return r.w.WriteParts(name, rows*bytes, func(dst []byte, off int64) error {
		w := tensor.NewWeight(src.DType, len(dst)/int(bytes), cols)
		if err := r.inv.ReadAt(src, w.Bytes(), off); err != nil {
			return err
		}
		x, err := turnCols(matrix(w), gain, t.q)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", src.Name, err)
		}
		copy(dst, weightOf(src.DType, x).Bytes())
		return nil
	})
}

// gain returns what a norm multiplies with; nil for no norm.
func (r *rotator) gain(norm string) ([]float32, error) {
	if norm == "" {
		return nil, nil
	}
	return r.m.Gain(norm)
}

// writeTurned writes a tensor of a block.
func (r *rotator) writeTurned(src checkpoint.Tensor, t *turns) error {
	x, err := r.turned(src.Name, t)
	if err != nil {
		return err
	}
	w := weightOf(src.DType, x)
	if k := w.FirstNonFinite(); k >= 0 {
		return fmt.Errorf("tensor %s: element %d is not finite in %v once it is turned", src.Name, k, src.DType)
	}
	return r.w.WriteTensor(src.Name, w.Bytes())
}

// turned returns a tensor of a block in the directions of t. A bias is a column.
func (r *rotator) turned(name string, t *turns) (tensor.Matrix, error) {
	src, ok := r.inv.Tensor(name)
	if !ok {
		return tensor.Matrix{}, fmt.Errorf("%s: no tensor %s", r.inv.Dir(), name)
	}
	rows, cols := src.Shape[0], 1
	if len(src.Shape) == 2 {
		cols = src.Shape[1]
	}
	w := tensor.NewWeight(src.DType, rows, cols)
	if err := r.inv.Read(src, w.Bytes()); err != nil {
		return tensor.Matrix{}, err
	}
	x := matrix(w)
	if a, ok := r.frame.Axes[name]; ok && r.stream {
		gain, err := r.gain(a.Norm)
		if err != nil {
			return x, err
		}
		if a.Cols {
			if x, err = turnCols(x, gain, t.q); err != nil {
				return x, fmt.Errorf("tensor %s: %w", name, err)
			}
		}
		if a.Rows {
			x = turnRows(x, t.q)
		}
	}
	for b, h := range r.frame.Heads {
		if h.Fixed != nil || b >= len(t.values) || t.values[b] == nil {
			continue
		}
		switch name {
		case h.V, h.Bias:
			for k, turn := range t.values[b] {
				lo := h.First + k*r.headDim
				copy(x.Data[lo*x.Cols:], turnRows(x.Slice(lo, lo+r.headDim), turn).Data)
			}
		case h.O:
			r.turnHeads(x, t.values[b])
		}
	}
	return x, nil
}

// turnHeads turns the columns of x, which are those of the query heads.
func (r *rotator) turnHeads(x tensor.Matrix, turns []tensor.Matrix) {
	d := r.headDim
	part := tensor.NewMatrix(x.Rows, d)
	for q := range r.queries * r.kvHeads {
		kernel.MatMulT(part.Data, d, x.Data[q*d:], x.Cols, kernel.Source{F32: turns[q/r.queries].Data}, d, x.Rows, d, d)
		for i := range x.Rows {
			copy(x.Row(i)[q*d:(q+1)*d], part.Row(i))
		}
	}
}

// matrix returns w in float32.
func matrix(w *tensor.Weight) tensor.Matrix {
	m := tensor.NewMatrix(w.Rows, w.Cols)
	parallel.For(w.Rows, 64, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			w.Row(m.Row(i), i)
		}
	})
	return m
}

// turnCols returns x·diag(gain)·qᵀ; a nil gain is 1.
func turnCols(x tensor.Matrix, gain []float32, q tensor.Matrix) (tensor.Matrix, error) {
	if gain != nil {
		if len(gain) != x.Cols {
			return x, fmt.Errorf("%d columns, and a norm of %d weights", x.Cols, len(gain))
		}
		for i := range x.Rows {
			for j, g := range gain {
				x.Row(i)[j] *= g
			}
		}
	}
	y := tensor.NewMatrix(x.Rows, q.Rows)
	kernel.MatMulT(y.Data, y.Cols, x.Data, x.Cols, kernel.Source{F32: q.Data}, q.Cols, x.Rows, q.Rows, q.Cols)
	return y, nil
}

// turnRows returns q·x.
func turnRows(x, q tensor.Matrix) tensor.Matrix {
	t := tensor.NewMatrix(x.Cols, x.Rows)
	for i := range x.Rows {
		for j, v := range x.Row(i) {
			t.Data[j*x.Rows+i] = v
		}
	}
	y := tensor.NewMatrix(q.Rows, x.Cols)
	kernel.MatMulT(y.Data, y.Cols, q.Data, q.Cols, kernel.Source{F32: t.Data}, t.Cols, q.Rows, x.Cols, q.Cols)
	return y
}

package enginetest

import (
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/tensor"
)

// Bitmap is the cpu engine with weights in another form: a bit for every element,
// and those that are not zero one after the other. Nothing above an engine can
// tell it from the cpu's own; tests that run on both show it.
type Bitmap struct{ *cpu.Engine }

// Load packs w and leaves its memory alone.
func (b Bitmap) Load(w *tensor.Weight) (engine.Op, error) {
	p := &bitmap{rows: w.Rows, cols: w.Cols, dtype: w.DType, first: make([]int, w.Rows)}
	row := make([]float32, w.Cols)
	for i := range w.Rows {
		w.Row(row, i)
		p.first[i] = len(p.kept)
		for _, v := range row {
			p.set = append(p.set, v != 0)
			if v != 0 {
				p.kept = append(p.kept, v)
			}
		}
	}
	return p, nil
}

type bitmap struct {
	rows, cols int
	dtype      tensor.DType
	set        []bool
	kept       []float32
	first      []int // [rows] of kept, each row's
}

var _ cpu.Form = (*bitmap)(nil)

func (p *bitmap) Dims() (out, in int)    { return p.rows, p.cols }
func (p *bitmap) DType() tensor.DType    { return p.dtype }
func (p *bitmap) Bytes() int64           { return int64(len(p.set)) + 4*int64(len(p.kept)) }
func (p *bitmap) Weight() *tensor.Weight { return nil }
func (p *bitmap) Read(w *tensor.Weight)  { p.Expand(w, 0) }

// Expand implements cpu.Form. A −0 comes back as +0.
func (p *bitmap) Expand(dst *tensor.Weight, lo int) {
	row := make([]float32, p.cols)
	for i := range dst.Rows {
		at := p.first[lo+i]
		for j := range row {
			row[j] = 0
			if p.set[(lo+i)*p.cols+j] {
				row[j] = p.kept[at]
				at++
			}
		}
		dst.SetRow(i, 0, row)
	}
}

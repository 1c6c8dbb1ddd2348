package enginetest

import (
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Card is the cpu engine with a copy of every weight, as a device has one: products see a
// change only after Load or Apply. It scores and selects by that copy. Nothing above an
// engine can tell it from the cpu's own; tests that run on both show it.
type Card struct {
	*cpu.Engine
	Selected *int // counts the masks it selects
}

var _ engine.Selector = Card{}

// Load copies w.
func (c Card) Load(w *tensor.Weight) (engine.Op, error) {
	own := tensor.NewWeight(w.DType, w.Rows, w.Cols)
	copy(own.Bytes(), w.Bytes())
	return &copied{w, own}, nil
}

// copied is a weight of the host, and the copy that products read.
type copied struct{ host, own *tensor.Weight }

var _ cpu.Form = (*copied)(nil)

func (o *copied) Dims() (out, in int)    { return o.own.Rows, o.own.Cols }
func (o *copied) DType() tensor.DType    { return o.own.DType }
func (o *copied) Bytes() int64           { return int64(len(o.own.Bytes())) }
func (o *copied) Weight() *tensor.Weight { return o.host }
func (o *copied) Read(w *tensor.Weight)  { copy(w.Bytes(), o.own.Bytes()) }

// Expand implements cpu.Form.
func (o *copied) Expand(dst *tensor.Weight, lo int) {
	copy(dst.Bytes(), o.own.Slice(lo, lo+dst.Rows).Bytes())
}

// Apply implements engine.Selector.
func (c Card) Apply(w engine.Op, first int, m *mask.Mask) {
	m.Apply(w.(*copied).own.Slice(first, first+m.Rows))
}

// Scores implements engine.Selector. The norms are those of a statistic of their squares,
// which float64 holds exactly.
func (c Card) Scores(w engine.Op, first, rows int, f engine.Importance) (engine.Scores, error) {
	s := &stats.Input{ColSq: make([]float64, len(f.Norms)), Sequences: 1, Tokens: 1}
	for j, n := range f.Norms {
		s.ColSq[j] = float64(n) * float64(n)
	}
	p := param.Values{
		"alpha": f.Alpha, "beta": f.Beta, "gamma": f.Gamma, "delta": f.Delta, "kernel": 2*f.Radius + 1, "power": 1.,
	}
	m := w.(*copied).own.Slice(first, first+rows)
	x := make([]float32, rows*m.Cols)
	err := score.CRePE.Score(x, m, s, p)
	return &scores{m, x, err != nil, nil, c.Selected}, nil
}

// scores implements engine.Scores.
type scores struct {
	w        *tensor.Weight
	x        []float32
	bad      bool
	cuts     []float32
	selected *int
}

func (s *scores) Select(t pattern.Target, order []int) (m *mask.Mask, err error) {
	if s.bad {
		return nil, engine.ErrScores
	}
	if order != nil {
		m, err = mask.SelectIn(s.x, s.w.Rows, s.w.Cols, t.Pattern, order)
	} else {
		m, err = mask.Select(s.x, s.w.Rows, s.w.Cols, t)
	}
	if err != nil {
		return nil, engine.ErrScores
	}
	*s.selected++
	if t.Pattern.Of == 0 {
		s.cut(m, t.Group)
	}
	return m, nil
}

// cut notes the highest scores that m prunes.
func (s *scores) cut(m *mask.Mask, g pattern.Group) {
	s.cuts = nil
	for i := range m.Rows {
		top := float32(-1)
		for j := range m.Cols {
			if !m.Kept(i, j) {
				top = max(top, s.x[i*m.Cols+j])
			}
		}
		switch {
		case top < 0:
		case g == pattern.Matrix && len(s.cuts) > 0:
			s.cuts[0] = max(s.cuts[0], top)
		default:
			s.cuts = append(s.cuts, top)
		}
	}
}

func (s *scores) Cuts() []float32 { return s.cuts }

func (s *scores) Read(dst []float32) error {
	if s.bad {
		return engine.ErrScores
	}
	copy(dst, s.x)
	return nil
}

func (s *scores) Spread(m *mask.Mask) (n []uint32, low []uint64) {
	n, low = make([]uint32, 2*engine.SpreadBins), make([]uint64, 2*engine.SpreadBins)
	for k, v := range s.x {
		bits, at := math.Float32bits(v), 0
		if m.Kept(k/m.Cols, k%m.Cols) {
			at = 1
		}
		at += int(bits>>16) * 2
		n[at]++
		low[at] += uint64(bits & 0xffff)
	}
	return n, low
}

func (s *scores) Release() {}

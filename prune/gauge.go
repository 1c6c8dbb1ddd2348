package prune

import (
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

// gauge measures, beside the pruning, what it costs each Linear. It changes no
// weight. All methods of a nil gauge do nothing.
type gauge struct {
	engine  engine.Engine
	seconds *float64 // where its time is counted
	stride  int      // one of so many tokens of an input is sampled

	stream  engine.Stream            // of the block at work, with its memory
	samples map[*model.Input]*sample // by input of the block at work
	spreads spreads
	done    []LinearMeasure // of the block at work

	now LinearMeasure
	y   engine.Mat     // the dense output of the sample
	sum float64        // Σ W²‖X‖² of all matrices so far
	out float64        // of their pruned weights
	was *tensor.Weight // the matrix at work, dense; nil: its mask says what was pruned
}

const (
	sampleTokens = 512 // of an input's tokens, about so many are sampled
	leastStride  = 255 // but no more than one of so many: both products are then 1/255 of what calibration takes
)

// newGauge returns a gauge for so many calibration tokens.
func newGauge(e engine.Engine, tokens int, seconds *float64) *gauge {
	return &gauge{engine: e, seconds: seconds, stride: sampleStride(tokens)}
}

// sampleStride is odd, so that it takes other positions of each sequence.
func sampleStride(tokens int) int { return max(leastStride, tokens/sampleTokens|1) }

// sample is some of the tokens that enter an input.
type sample struct {
	seen int       // tokens
	rows []float32 // those sampled, row after row
}

// tap takes every stride-th token of an input.
func (g *gauge) tap(in *model.Input, x engine.Mat) {
	if g.samples == nil {
		g.samples = map[*model.Input]*sample{}
	}
	s := g.samples[in]
	if s == nil {
		s = new(sample)
		g.samples[in] = s
	}
	for i := (g.stride - s.seen%g.stride) % g.stride; i < x.Rows; i += g.stride {
		row := make([]float32, x.Cols)
		g.engine.Download(tensor.Matrix{Rows: 1, Cols: x.Cols, Data: row}, x.Slice(i, i+1))
		s.rows = append(s.rows, row...)
	}
	s.seen += x.Rows
}

// begin takes up l, which is dense.
func (g *gauge) begin(l *model.Linear, in *model.Input) {
	if g == nil {
		return
	}
	defer timed(g.seconds)()
	g.now, g.sum, g.out = LinearMeasure{Name: l.Name}, 0, 0
	g.y = g.output(in, l)
}

// output returns what l makes of the sample of in; no rows if there is none. It is
// of use until the end.
func (g *gauge) output(in *model.Input, l *model.Linear) engine.Mat {
	s := g.samples[in]
	if s == nil || len(s.rows) == 0 {
		return engine.Mat{}
	}
	if g.stream == nil {
		g.stream = g.engine.NewStream()
	}
	tokens := len(s.rows) / l.Cols
	y := g.stream.Alloc(tokens, l.Rows)
	mark := g.stream.Mark()
	defer g.stream.Release(mark)
	x := g.stream.Alloc(tokens, l.Cols)
	g.engine.Upload(x, tensor.Matrix{Rows: tokens, Cols: l.Cols, Data: s.rows})
	p := engine.Proj{W: l.Op(), N: l.Rows}
	g.stream.Linear(y, g.stream.Operand(x, nil, p), p)
	return y
}

// selected notes where the mask of j was cut, before anything refines it.
func (g *gauge) selected(j *job) {
	if g == nil || j.threshold != nil || j.kept == nil || j.scores == nil && j.scored == nil {
		return
	}
	defer timed(g.seconds)()
	j.threshold = thresholdOf(j.cuts(), j.target.Group)
}

// before measures j before its last step, which sets weights to zero.
func (g *gauge) before(j *job) {
	if g == nil {
		return
	}
	defer timed(g.seconds)()
	g.was = nil
	if j.kept == nil {
		w := j.dense()
		g.was = tensor.NewWeight(w.DType, w.Rows, w.Cols)
		copy(g.was.Bytes(), w.Bytes())
		return
	}
	g.energy(j, j.dense(), j.kept)
	var s *Scores
	switch {
	case j.scores != nil:
		s = g.spreads.of(j.scores, j.kept)
	case j.scored != nil:
		s = spreadOf(j.scored.Spread(j.kept)).scores()
	}
	if s != nil {
		s.Part, s.Threshold = j.part.Name, j.threshold
		g.now.Scores = append(g.now.Scores, *s)
	}
}

// after measures j after its last step, if no mask said before what it would prune.
func (g *gauge) after(j *job) {
	if g == nil || g.was == nil {
		return
	}
	defer timed(g.seconds)()
	g.energy(j, g.was, mask.NonZero(j.w))
	g.was = nil
}

// energy adds that of the dense matrix w, and of what kept leaves out.
func (g *gauge) energy(j *job, w *tensor.Weight, kept *mask.Mask) {
	var colSq []float64
	if j.input.Input != nil {
		colSq = j.input.ColSq
	}
	sums, outs := make([]float64, w.Rows), make([]float64, w.Rows)
	parallel.For(w.Rows, measureRows(w.Cols), func(lo, hi int) {
		row := make([]float32, w.Cols)
		for i := lo; i < hi; i++ {
			w.Row(row, i)
			bits := kept.Words(i)
			var of [2]float64 // the pruned, the kept
			for k, v := range row {
				e := float64(v) * float64(v)
				if colSq != nil {
					e *= colSq[k]
				}
				of[bits[k>>6]>>(k&63)&1] += e
			}
			sums[i], outs[i] = of[0]+of[1], of[0]
		}
	})
	for i := range sums {
		g.sum += sums[i]
		g.out += outs[i]
	}
}

// end measures what became of the Linear that begin took up.
func (g *gauge) end(l *model.Linear, in *model.Input) {
	if g == nil {
		return
	}
	defer timed(g.seconds)()
	if share := g.out / g.sum; g.sum > 0 && !math.IsInf(g.sum, 0) {
		g.now.EnergyLost = &share
	}
	if g.y.Rows > 0 {
		y := g.output(in, l)
		if e := g.relative(y, g.y); !math.IsNaN(e) && !math.IsInf(e, 0) {
			g.now.Output = &OutputError{Relative: e, Tokens: y.Rows}
		}
		g.stream.Release(0)
	}
	g.done = append(g.done, g.now)
}

// relative returns ‖y − dense‖ / ‖dense‖, with float64 sums.
func (g *gauge) relative(y, dense engine.Mat) float64 {
	diff, norm := make([]float64, y.Rows), make([]float64, y.Rows)
	parallel.For(y.Rows, 16, func(lo, hi int) {
		a, b := tensor.NewMatrix(hi-lo, y.Cols), tensor.NewMatrix(hi-lo, y.Cols)
		g.engine.Download(a, y.Slice(lo, hi))
		g.engine.Download(b, dense.Slice(lo, hi))
		for t := range a.Rows {
			from := b.Row(t)
			for i, v := range a.Row(t) {
				d, n := float64(v)-float64(from[i]), float64(from[i])
				diff[lo+t] += d * d
				norm[lo+t] += n * n
			}
		}
	})
	d, n := 0.0, 0.0
	for t := range diff {
		d += diff[t]
		n += norm[t]
	}
	return math.Sqrt(d / n)
}

// release gives the memory of the block at work up: the forward pass that follows
// takes as much.
func (g *gauge) release() {
	if g != nil {
		g.samples, g.stream, g.y = nil, nil, engine.Mat{}
	}
}

// take returns what was measured of the block at work.
func (g *gauge) take() []LinearMeasure {
	if g == nil {
		return nil
	}
	done := g.done
	g.done = nil
	return done
}

// measureBytes returns what measuring a block of these Linears holds: the samples of
// its inputs, and at most of a Linear its outputs or, where an update selects, its
// dense weight.
func (p *Plan) measureBytes(inputs [][]model.LinearSpec, tokens int) (samples, work int64) {
	const float32Bytes = 4
	work = spreadBytes()
	for _, in := range inputs {
		n := int64(in[0].Share*float64(tokens))/int64(sampleStride(tokens)) + 1
		if !p.resolved.Observes {
			n = 0
		}
		samples += float32Bytes * n * int64(in[0].Cols)
		for _, l := range in {
			output := float32Bytes * n * int64(l.Rows)
			work = max(work, output+spreadBytes(), 2*output+float32Bytes*n*int64(l.Cols))
			if p.resolved.Method.Score == nil {
				work = max(work, output+int64(l.DType.Size())*int64(l.Rows)*int64(l.Cols))
			}
		}
	}
	return samples, work
}

// Package reference is the engine to read first: every operation of
// engine.Engine by its formula, in plain Go, one loop inside the other, sums in
// float64 and results rounded to float32 once. It is what the other engines are
// tested against, and far too slow for anything else.
package reference

import (
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Engine computes by the formulas.
type Engine struct{ compute engine.Compute }

var _ engine.Engine = Engine{}

// New returns an engine that computes so: with engine.BF16 what enters products
// with bfloat16 weights is rounded to bfloat16, and nothing else is.
func New(c engine.Compute) Engine { return Engine{c} }

// ID returns "reference", or "reference+bf16".
func (e Engine) ID() string {
	if e.compute == engine.BF16 {
		return "reference+bf16"
	}
	return "reference"
}

// Compute implements engine.Engine.
func (e Engine) Compute() engine.Compute { return e.compute }

// Rounds implements engine.Engine.
func (e Engine) Rounds(weights tensor.DType) bool {
	return e.compute == engine.BF16 && weights == tensor.BF16
}

// memory holds activations row after row.
type memory struct{ data []float32 }

func (m *memory) Bytes() int64 { return 4 * int64(len(m.data)) }

// NewMat implements engine.Engine.
func (e Engine) NewMat(rows, cols int) engine.Mat {
	return engine.Mat{Rows: rows, Cols: cols, Mem: &memory{make([]float32, rows*cols)}}
}

// matrix returns x as a matrix that aliases it.
func matrix(x engine.Mat) tensor.Matrix {
	m, ok := x.Mem.(*memory)
	if !ok {
		panic(fmt.Sprintf("reference: activations in %T, want those of this engine", x.Mem))
	}
	return tensor.Matrix{Rows: x.Rows, Cols: x.Cols, Data: m.data[x.First*x.Cols : (x.First+x.Rows)*x.Cols]}
}

// Upload implements engine.Engine.
func (e Engine) Upload(dst engine.Mat, src tensor.Matrix) { copyMatrix(matrix(dst), src) }

// Download implements engine.Engine.
func (e Engine) Download(dst tensor.Matrix, src engine.Mat) { copyMatrix(dst, matrix(src)) }

func copyMatrix(dst, src tensor.Matrix) {
	if dst.Rows != src.Rows || dst.Cols != src.Cols {
		panic(fmt.Sprintf("reference: copy of %d × %d to %d × %d", src.Rows, src.Cols, dst.Rows, dst.Cols))
	}
	copy(dst.Data, src.Data)
}

// vec is an engine.Vec.
type vec []float32

func (v vec) Len() int { return len(v) }

// NewVec implements engine.Engine.
func (e Engine) NewVec(v []float32) engine.Vec { return vec(v) }

// op is a weight widened to float64: a form of its own.
type op struct {
	dtype tensor.DType
	rows  [][]float64
	cols  int
}

func (o *op) Dims() (out, in int)    { return len(o.rows), o.cols }
func (o *op) DType() tensor.DType    { return o.dtype }
func (o *op) Bytes() int64           { return 8 * int64(len(o.rows)) * int64(o.cols) }
func (o *op) Weight() *tensor.Weight { return nil }

func (o *op) Read(w *tensor.Weight) {
	row := make([]float32, o.cols)
	for i, r := range o.rows {
		for j, v := range r {
			row[j] = float32(v)
		}
		w.SetRow(i, 0, row)
	}
}

// Load implements engine.Engine.
func (e Engine) Load(w *tensor.Weight) (engine.Op, error) {
	o := &op{dtype: w.DType, cols: w.Cols}
	row := make([]float32, w.Cols)
	for i := range w.Rows {
		w.Row(row, i)
		o.rows = append(o.rows, widen(row))
	}
	return o, nil
}

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// NewStream implements engine.Engine.
func (e Engine) NewStream() engine.Stream { return stream{e} }

// stream needs no memory between operations.
type stream struct{ e Engine }

var (
	_ engine.Stream = stream{}
	_ engine.Delta  = stream{}
)

func (s stream) Alloc(rows, cols int) engine.Mat { return s.e.NewMat(rows, cols) }
func (s stream) Mark() int                       { return 0 }
func (s stream) Release(int)                     {}
func (s stream) Bytes() int64                    { return 0 }
func (s stream) Copy(dst, x engine.Mat)          { copyMatrix(matrix(dst), matrix(x)) }

// Norm implements engine.Stream.
func (s stream) Norm(dst, x engine.Mat, n *engine.Norm) {
	to, from := matrix(dst), matrix(x)
	for t := range from.Rows {
		rmsNorm(to.Row(t), from.Row(t), n)
	}
}

// rmsNorm writes x_j · w_j / sqrt(mean(x²) + eps); dst may be x.
func rmsNorm(dst, x []float32, n *engine.Norm) {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	by := 1 / math.Sqrt(sum/float64(len(x))+float64(n.Eps))
	for j, v := range x {
		dst[j] = float32(float64(v) * by * float64(n.W.(vec)[j]))
	}
}

// Operand implements engine.Stream: products round by themselves.
func (s stream) Operand(x engine.Mat, n *engine.Norm, _ ...engine.Proj) engine.Mat {
	if n == nil {
		return x
	}
	y := s.Alloc(x.Rows, x.Cols)
	s.Norm(y, x, n)
	return y
}

// OperandFor implements engine.Stream.
func (s stream) OperandFor(rows int, w engine.Proj) engine.Mat {
	_, in := w.W.Dims()
	return s.Alloc(rows, in)
}

// Linear implements engine.Stream.
func (s stream) Linear(dst, x engine.Mat, w engine.Proj) {
	to, from := matrix(dst), matrix(x)
	for t := range from.Rows {
		copy(to.Row(t), s.product(from.Row(t), w))
	}
}

// product returns x·wᵀ + bias of one token.
func (s stream) product(x []float32, w engine.Proj) []float32 {
	o := w.W.(*op)
	if len(x) != o.cols {
		panic(fmt.Sprintf("reference: product of %d columns with %d", len(x), o.cols))
	}
	y := make([]float32, w.N)
	for f := range y {
		sum := 0.0
		for j, v := range o.rows[w.Lo+f] {
			xj := x[j]
			if s.e.Rounds(o.dtype) {
				xj = tensor.RoundBF16(xj)
			}
			sum += float64(xj) * v
		}
		if w.Bias != nil {
			sum += float64(w.Bias.(vec)[w.Lo+f])
		}
		y[f] = float32(sum)
	}
	return y
}

// Gated implements engine.Stream.
func (s stream) Gated(dst, x engine.Mat, gate, up engine.Proj, act engine.Activation) {
	to, from := matrix(dst), matrix(x)
	for t := range from.Rows {
		g, u := s.product(from.Row(t), gate), s.product(from.Row(t), up)
		for i := range g {
			to.Row(t)[i] = float32(activate(float64(g[i]), act) * float64(u[i]))
		}
	}
}

func activate(x float64, act engine.Activation) float64 {
	if act == engine.GELU {
		return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	}
	return x * sigmoid(x)
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// Add implements engine.Stream.
func (s stream) Add(x, y engine.Mat, post *engine.Norm) {
	to, from := matrix(x), matrix(y)
	for t := range from.Rows {
		if post != nil {
			rmsNorm(from.Row(t), from.Row(t), post)
		}
		for j, v := range from.Row(t) {
			to.Row(t)[j] += v
		}
	}
}

// Sub implements engine.Stream.
func (s stream) Sub(dst, x, y engine.Mat) {
	to, a, b := matrix(dst), matrix(x), matrix(y)
	for i := range a.Data {
		to.Data[i] = a.Data[i] - b.Data[i]
	}
}

// Squares implements engine.Stream.
func (s stream) Squares(dst []float64, x engine.Mat) {
	for t := range x.Rows {
		dst[t] = 0
		for _, v := range matrix(x).Row(t) {
			dst[t] += float64(v) * float64(v)
		}
	}
}

// FirstHalves implements engine.Stream.
func (s stream) FirstHalves(dst, x engine.Mat, dim int) {
	to, from := matrix(dst), matrix(x)
	for t := range to.Rows {
		for j := range to.Cols {
			to.Row(t)[j] = from.Row(t)[j/dim*2*dim+j%dim]
		}
	}
}

// GateHalves implements engine.Stream.
func (s stream) GateHalves(x, gates engine.Mat, dim int) {
	to, by := matrix(x), matrix(gates)
	for t := range to.Rows {
		for j, v := range to.Row(t) {
			gate := by.Row(t)[j/dim*2*dim+dim+j%dim]
			to.Row(t)[j] = float32(float64(v) * sigmoid(float64(gate)))
		}
	}
}

// Route implements engine.Stream.
func (s stream) Route(x engine.Mat, router engine.Proj, used int, renormalise bool) [][]engine.Routed {
	routed := make([][]engine.Routed, router.N)
	for t := range x.Rows {
		p := softmax(widen(s.product(matrix(x).Row(t), router)))
		chosen, total := []int{}, 0.0
		for range used {
			best := -1
			for e, v := range p {
				if v >= 0 && (best < 0 || v > p[best]) && !contains(chosen, e) {
					best = e
				}
			}
			if best < 0 {
				break // not finite
			}
			chosen = append(chosen, best)
			total += p[best]
		}
		if len(chosen) < used {
			continue
		}
		if !renormalise {
			total = 1
		}
		for _, e := range chosen {
			routed[e] = append(routed[e], engine.Routed{Token: t, Weight: float32(p[e] / total)})
		}
	}
	return routed
}

func contains(list []int, x int) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}

// softmax overwrites x.
func softmax(x []float64) []float64 {
	top, sum := math.Inf(-1), 0.0
	for _, v := range x {
		top = max(top, v)
	}
	for i, v := range x {
		x[i] = math.Exp(v - top)
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
	return x
}

// Gather implements engine.Stream.
func (s stream) Gather(dst, x engine.Mat, tokens []engine.Routed) {
	for i, r := range tokens {
		copy(matrix(dst).Row(i), matrix(x).Row(r.Token))
	}
}

// ScatterAdd implements engine.Stream.
func (s stream) ScatterAdd(x, y engine.Mat, tokens []engine.Routed) {
	for i, r := range tokens {
		to := matrix(x).Row(r.Token)
		for j, v := range matrix(y).Row(i) {
			to[j] = float32(float64(to[j]) + float64(r.Weight)*float64(v))
		}
	}
}

// LogSums implements engine.Stream.
func (s stream) LogSums(sums []engine.LogSum, x engine.Mat, head engine.Proj, first int, softCap float32, targets []int32) {
	for t := range x.Rows {
		logits := s.logits(matrix(x).Row(t), head, softCap)
		top, sum := math.Inf(-1), 0.0
		for _, v := range logits {
			top = max(top, float64(v))
		}
		for _, v := range logits {
			sum += math.Exp(float64(v) - top)
		}
		sums[t].Add(top, sum)
		if i := int(targets[t]) - first; i >= 0 && i < len(logits) {
			sums[t].Target = float64(logits[i])
		}
	}
}

// Logits implements engine.Stream.
func (s stream) Logits(dst, x engine.Mat, head engine.Proj, first int, softCap float32) {
	for t := range x.Rows {
		copy(matrix(dst).Row(t)[first:], s.logits(matrix(x).Row(t), head, softCap))
	}
}

func (s stream) logits(x []float32, head engine.Proj, softCap float32) []float32 {
	y := s.product(x, head)
	if softCap > 0 {
		for i, v := range y {
			y[i] = float32(capped(float64(v), float64(softCap)))
		}
	}
	return y
}

func capped(x, limit float64) float64 { return limit * math.Tanh(x/limit) }

// accumulator keeps all that it is given, so that its sums are the formulas'.
type accumulator struct {
	in        int
	needs     stats.Needs
	sequences []tensor.Matrix
	fits      []fit // of the sequences
}

// fit is an engine.Fit.
type fit struct {
	weights []float64 // nil: each token counts 1
	lacks   tensor.Matrix
}

// weight returns that of token t.
func (f fit) weight(t int) float64 {
	if f.weights == nil {
		return 1
	}
	return f.weights[t]
}

// NewStats implements engine.Engine.
func (e Engine) NewStats(in int, needs stats.Needs) engine.Stats {
	return &accumulator{in: in, needs: needs}
}

// StatsScratch implements engine.Engine. It counts what a sequence of one token
// keeps: more come in its memory.
func (e Engine) StatsScratch(in int, _ stats.Needs) int64 { return 4 * int64(in) }

// Add implements engine.Stats.
func (a *accumulator) Add(x engine.Mat) { a.AddFit(x, engine.Fit{}) }

// AddFit implements engine.Stats.
func (a *accumulator) AddFit(x engine.Mat, f engine.Fit) {
	if x.Cols != a.in {
		panic(fmt.Sprintf("reference: Stats.Add: %d columns, want %d", x.Cols, a.in))
	}
	y := tensor.NewMatrix(x.Rows, x.Cols)
	copyMatrix(y, matrix(x))
	a.sequences = append(a.sequences, y)
	own := fit{weights: slices.Clone(f.Weights)}
	if f.Lacks.Rows > 0 {
		own.lacks = tensor.NewMatrix(f.Lacks.Rows, f.Lacks.Cols)
		copyMatrix(own.lacks, matrix(f.Lacks))
	}
	a.fits = append(a.fits, own)
}

// Input implements engine.Stats.
func (a *accumulator) Input(sequences int) *stats.Input {
	in := &stats.Input{ColSq: make([]float64, a.in), Sequences: sequences}
	n := float64(sequences)
	sum, variance := make([]float64, a.in), make([]float64, a.in)
	for _, x := range a.sequences {
		in.Tokens += x.Rows
		for j := range a.in {
			mean := 0.0
			for t := range x.Rows {
				v := float64(x.Row(t)[j])
				in.ColSq[j] += v * v / n
				mean += v / float64(x.Rows)
			}
			sum[j] += mean * float64(x.Rows) / n
			for t := range x.Rows {
				d := float64(x.Row(t)[j]) - mean
				variance[j] += d * d
			}
		}
	}
	if a.needs.Moments {
		for j := range variance {
			variance[j] /= float64(max(in.Tokens, 1))
		}
		in.ColSum, in.ColVar = sum, variance
	}
	if a.needs.Gram {
		in.Gram = stats.NewGram(a.in, 2/n, a.gram())
	}
	if a.needs.Cross > 0 {
		in.Cross = stats.NewCross(a.needs.Cross, a.in, 2/n, a.cross())
	}
	return in
}

// cross returns Σ YᵀX.
func (a *accumulator) cross() []float64 {
	sum := make([]float64, a.needs.Cross*a.in)
	for s, x := range a.sequences {
		f := a.fits[s]
		for t := range f.lacks.Rows {
			for i, y := range f.lacks.Row(t) {
				for j, v := range x.Row(t) {
					sum[i*a.in+j] += f.weight(t) * float64(y) * float64(v)
				}
			}
		}
	}
	return sum
}

// gram returns the panels of Σ XᵀX.
func (a *accumulator) gram() [][]float64 {
	panels := stats.NewGramPanels(a.in)
	for p, panel := range panels {
		lo := p * stats.GramPanel
		hi := min(lo+stats.GramPanel, a.in)
		for i := range hi {
			for j := lo; j < hi; j++ {
				for s, x := range a.sequences {
					for t := range x.Rows {
						panel[i*(hi-lo)+j-lo] += a.fits[s].weight(t) * float64(x.Row(t)[i]) * float64(x.Row(t)[j])
					}
				}
			}
		}
	}
	return panels
}

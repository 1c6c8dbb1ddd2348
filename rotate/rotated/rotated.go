// Package rotated writes a model in other directions: it finds the rotations of package
// rotate, and turns every tensor that meets the residual stream or the heads' values.
// What comes out is an ordinary folder whose logits are the model's own.
//
// With Q the stream's rotation, B_h that of head h, and g the weights of the norm before
// a Linear,
//
//	embedding E ← E·Qᵀ               head U ← U·diag(g)·Qᵀ
//	reads the stream  W ← W·diag(g)·Qᵀ   writes it  W ← Q·W, bias b ← Q·b
//	values of head h  V_h ← B_h·V_h, bias likewise;   what reads them  O_h ← O_h·B_hᵀ
//
// and g ← 1. An RMS norm divides by the size of what it sees, which no rotation changes.
package rotated

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/rotate"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Options say how to rotate, by which text, and where the folder goes.
type Options struct {
	rotate.Options

	Tokens [][]int32 // calibration sequences
	SeqLen int

	Output    string
	Overwrite bool // replace a folder that crepe wrote
	Resume    bool // go on with an interrupted rotation, if there is one

	Depends provenance.Record // all that the folder depends on

	// States returns where hidden states are kept, if a file would lie in dir.
	States func(dir string) engine.Place

	Progress progress.Func
	Warn     func(format string, args ...any) // may be nil
}

// Measured is what Learn made of the mean of its measure: of the loss, as a share of that
// before, or of the entropy, in nats.
type Measured struct {
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	Steps  int     `json:"steps"` // most that any rotation took
}

// Result says what was rotated.
type Result struct {
	For    string    `json:"for"`              // rotate.Loss or rotate.Entropy
	Stream *Measured `json:"stream,omitempty"` // nil: not turned
	Values *Measured `json:"values,omitempty"` // mean over the heads that were turned; nil: none was
	Left   []string  `json:"left,omitempty"`   // what was asked for and cannot be turned, and why
}

// Record is the content of checkpoint.RotationRecordName.
type Record struct {
	Crepe      string            `json:"crepe"`      // version
	Provenance string            `json:"provenance"` // the key of all that the folder depends on
	Inputs     map[string]string `json:"inputs"`     // SHA-256 of config and weight files
	Result
}

// Plan is what a rotation will do, known before any weight is read.
type Plan struct {
	Files  *checkpoint.Plan
	Bytes  int64   // of memory, at most, without a block and hidden states
	FLOP   float64 // of the passes of the sequences, in the engine's products
	FLOP32 float64 // of Gram matrices, learning and turning

	Left []string // as in Result

	frame    *model.Frame
	config   []byte // of the output
	untied   string // tensor that the output has besides; "" for none
	stream   bool
	every    int // of the rows and columns of weights, one is learned from
	opt      rotate.Options
	headDim  int
	queries  int // query heads of a head of values
	kvHeads  int
	learning int // vectors
}

// NewPlan plans the rotation of m, whose checkpoint is inv, by so many tokens. It is an
// error if nothing of what is asked for can be turned.
func NewPlan(inv *checkpoint.Inventory, m *model.Model, opt rotate.Options, tokens int) (*Plan, error) {
	c := m.Config
	p := &Plan{
		frame: m.Frame(), config: inv.Config(), opt: opt, stream: opt.Stream,
		headDim: c.HeadDim, kvHeads: c.KVHeads, queries: c.Heads / c.KVHeads,
	}
	if p.stream && p.frame.Fixed != nil {
		p.stream = false
		p.Left = append(p.Left, "the residual stream: "+p.frame.Fixed.Error())
	}
	heads, fixed := 0, 0
	if opt.Values {
		why := ""
		for _, h := range p.frame.Heads {
			if h.Fixed == nil {
				heads += p.kvHeads
				continue
			}
			if fixed++; fixed == 1 {
				why = h.Fixed.Error()
			}
		}
		if fixed > 0 {
			p.Left = append(p.Left, fmt.Sprintf("the heads' values of %d of %d blocks: %s", fixed, m.Blocks(), why))
		}
	}
	if !p.stream && heads == 0 {
		return nil, fmt.Errorf("nothing can be turned: %s", p.Left[0])
	}
	p.count(m, tokens, heads)
	var err error
	p.Files, err = p.layout(inv)
	return p, err
}

// layout returns the output's plan: that of a copy, but for a head of its own.
func (p *Plan) layout(inv *checkpoint.Inventory) (*checkpoint.Plan, error) {
	files := inv.Layouts()
	f := p.frame
	if p.stream && f.Embedding.Name == f.Head.Name {
		twin := f.Embedding
		twin.Name = f.Twin()
		p.untied = twin.Name
		last := &files[len(files)-1]
		last.Tensors = append(slices.Clone(last.Tensors), twin)
	}
	if p.stream { // also where both are stored: what is equal now is not afterwards
		var err error
		if p.config, err = checkpoint.UntiedConfig(p.config); err != nil {
			return nil, fmt.Errorf("%s: %w", inv.Dir(), err)
		}
	}
	files = slices.DeleteFunc(files, func(l checkpoint.Layout) bool { return len(l.Tensors) == 0 })
	plan, err := checkpoint.PlanFiles(inv, files)
	if err != nil {
		return nil, err
	}
	plan.Replace("config.json")
	return plan, nil
}

// count fills in what the rotation takes.
func (p *Plan) count(m *model.Model, tokens, heads int) {
	w, vectors, weights, widest := m.Width(), 0, 0.0, m.Width()
	values := int64(0)
	for b := range m.Blocks() {
		for _, l := range m.Linears(b) {
			n, share := vectorsOf(p.frame, l)
			vectors += n
			weights += l.Share * float64(l.Rows) * float64(l.Cols)
			p.FLOP32 += 2 * float64(n) * float64(w) * float64(w) * share
			widest = max(widest, l.Rows, l.Cols)
			values = max(values, 3*4*int64(l.Rows)*int64(l.Cols))
		}
	}
	p.every = max(1, (vectors+p.opt.Vectors-1)/p.opt.Vectors)
	p.learning = vectors / p.every
	p.FLOP = 2 * weights * float64(tokens)
	square := 8 * int64(w) * int64(w)
	if p.stream {
		p.FLOP32 += 2*float64(m.Blocks())*float64(tokens)*float64(w)*float64(w) + rotate.LearnFLOP(w, p.learning, p.opt.Steps)
		p.Bytes += 2*square + 4*int64(p.learning)*int64(w) + rotate.LearnBytes(w)
	}
	if heads > 0 {
		q := p.queries * p.kvHeads * p.headDim
		p.FLOP32 += float64(m.Blocks())*float64(tokens)*float64(q)*float64(q) +
			float64(heads)*rotate.LearnFLOP(p.headDim, (1+p.queries)*w, p.opt.Steps)
		p.Bytes += stats.GramBytes(q) + 4*int64(heads)*int64(p.queries+1)*int64(p.headDim)*int64(p.headDim) + rotate.LearnBytes(p.headDim)
	}
	p.Bytes += max(values, 3*4*partBytes)
}

// vectorsOf returns how many vectors of the stream's width a Linear has, and whether as
// rows or columns makes no difference to what turning one costs.
func vectorsOf(f *model.Frame, l model.LinearSpec) (n int, share float64) {
	switch a := f.Axes[l.Name+".weight"]; {
	case l.Gate:
		return 0, 0
	case a.Cols:
		return l.Rows, 1
	case a.Rows:
		return l.Cols, 1
	}
	return 0, 0
}

// turns are the rotations.
type turns struct {
	q      tensor.Matrix     // of the stream; no rows: none
	values [][]tensor.Matrix // by block and head; nil: none
}

// Folder writes the model m, whose checkpoint is inv, in the directions that it finds.
// hashes are those of inv. The folder appears complete or not at all; what an
// interrupted rotation has learned is kept beside it. One block, the sums of Gram
// matrices and one tensor are in memory at a time.
func Folder(ctx context.Context, inv *checkpoint.Inventory, m *model.Model, p *Plan, hashes map[string]string, opt Options) (*Result, error) {
	create := checkpoint.Create
	if opt.Resume {
		create = checkpoint.Resume
	}
	o := checkpoint.Options{Provenance: opt.Depends, Overwrite: opt.Overwrite}
	w, err := create(opt.Output, p.Files, inv, o)
	if opt.Resume && errors.Is(err, checkpoint.ErrNoPartial) {
		w, err = checkpoint.Create(opt.Output, p.Files, inv, o)
	}
	if errors.Is(err, checkpoint.ErrFinished) {
		return ReadResult(opt.Output)
	}
	if err != nil {
		return nil, err
	}
	defer w.Close()
	r := &rotator{Plan: p, inv: inv, m: m, w: w, in: opt}
	res, t, err := r.learned(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.write(ctx, t); err != nil {
		return nil, err
	}
	record, err := json.MarshalIndent(Record{Crepe: provenance.Version, Provenance: opt.Depends.Key(), Inputs: hashes, Result: *res}, "", "  ")
	if err != nil {
		return nil, err
	}
	m.Trim()
	return res, w.Commit(map[string][]byte{"config.json": p.config, checkpoint.RotationRecordName: append(record, '\n')})
}

// maxRecord bounds the record: it has a hash of each file with weights.
const maxRecord = 16 << 20 // bytes

// ReadRecord returns the record of a rotated folder.
func ReadRecord(dir string) (*Record, error) {
	path := filepath.Join(dir, checkpoint.RotationRecordName)
	text, err := regular.Read(path, maxRecord)
	if err != nil {
		return nil, err
	}
	r := new(Record)
	if err := pyjson.Record(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// ReadResult is ReadRecord's Result.
func ReadResult(dir string) (*Result, error) {
	r, err := ReadRecord(dir)
	if err != nil {
		return nil, err
	}
	return &r.Result, nil
}

// rotator is one rotation at work.
type rotator struct {
	*Plan
	inv *checkpoint.Inventory
	m   *model.Model
	w   *checkpoint.Writer
	in  Options

	vectors [2]tensor.Matrix  // that read the stream, and that write to it
	gram    []float64         // of the stream behind norms that multiply with 1, over all of them
	heads   [][]tensor.Matrix // Gram matrices of the query heads' output, by block
	at      int               // vectors that were met
	store   *hidden.Store     // of what enters the next block
	bar     *progress.Bar
}

// stepLearned is the journal's name of what is learned.
const stepLearned = "rotations"

// noted is what the journal has of it.
type noted struct {
	Result *Result `json:"result"`
	SHA256 string  `json:"sha256"` // of the rotations' file
}

// learned returns the rotations: those that an interrupted run has left, or new ones.
func (r *rotator) learned(ctx context.Context) (*Result, *turns, error) {
	path := r.w.ScratchPath(stepLearned)
	if r.w.Done(stepLearned) {
		var n noted
		if err := r.w.Info(stepLearned, &n); err != nil {
			return nil, nil, err
		}
		t := r.shapes()
		data, err := regular.Read(path, t.bytes())
		if err == nil && sum(data) == n.SHA256 {
			t.decode(data)
			return n.Result, t, nil
		}
		if r.in.Warn != nil {
			r.in.Warn("%s: damaged; the rotations are found again", path)
		}
	}
	res, t, err := r.learn(ctx)
	if err != nil {
		return nil, nil, err
	}
	data := t.encode()
	if err := fsys.WriteFile(path, data); err != nil {
		return nil, nil, err
	}
	return res, t, r.w.Mark(stepLearned, noted{res, sum(data)})
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// learn finds the rotations.
func (r *rotator) learn(ctx context.Context) (*Result, *turns, error) {
	if err := r.gather(ctx); err != nil {
		return nil, nil, err
	}
	res, t := &Result{For: r.opt.Measure.Name(), Left: r.Left}, r.shapes()
	if r.stream {
		w := r.m.Width()
		g := tensor.NewMatrix(w, w)
		for i, v := range r.gram {
			g.Data[i] = float32(v)
		}
		r.gram = nil
		bar := r.in.Progress.Start("rotate: the residual stream", int64(r.opt.Steps), "steps")
		var values []float64
		t.q, values = rotate.Learn(w, []rotate.Vectors{{V: r.vectors[0], Gram: g}, {V: r.vectors[1]}}, r.opt.Measure, r.opt.Steps, func() { bar.Add(1) })
		res.Stream = &Measured{values[0], values[len(values)-1], len(values) - 1}
		r.vectors = [2]tensor.Matrix{}
	}
	return res, t, r.learnValues(ctx, res, t)
}

// shapes returns turns of nothing: memory for those that will be.
func (r *rotator) shapes() *turns {
	t := &turns{values: make([][]tensor.Matrix, len(r.frame.Heads))}
	if r.stream {
		t.q = tensor.NewMatrix(r.m.Width(), r.m.Width())
	}
	for b, h := range r.frame.Heads {
		if r.opt.Values && h.Fixed == nil {
			for range r.kvHeads {
				t.values[b] = append(t.values[b], tensor.NewMatrix(r.headDim, r.headDim))
			}
		}
	}
	return t
}

// all returns the matrices in one order.
func (t *turns) all() []tensor.Matrix {
	all := []tensor.Matrix{t.q}
	for _, b := range t.values {
		all = append(all, b...)
	}
	return all
}

// bytes is the length of what encode returns.
func (t *turns) bytes() (n int64) {
	for _, m := range t.all() {
		n += 4 * int64(len(m.Data))
	}
	return n
}

func (t *turns) encode() []byte {
	var out []byte
	for _, m := range t.all() {
		out = append(out, weightOf(tensor.F32, m).Bytes()...)
	}
	return out
}

// decode reads what encode wrote of turns of the same shapes.
func (t *turns) decode(data []byte) {
	for _, m := range t.all() {
		w := tensor.NewWeight(tensor.F32, m.Rows, m.Cols)
		data = data[copy(w.Bytes(), data):]
		for i := range m.Rows {
			w.Row(m.Row(i), i)
		}
	}
}

// weightOf returns m as a weight of that type.
func weightOf(d tensor.DType, m tensor.Matrix) *tensor.Weight {
	w := tensor.NewWeight(d, m.Rows, m.Cols)
	for i := range m.Rows {
		w.SetRow(i, 0, m.Row(i))
	}
	return w
}

// gather takes the sequences through the dense model, for the Gram matrices of the
// stream behind each norm and of what the heads yield, and takes vectors of the weights.
func (r *rotator) gather(ctx context.Context) error {
	m := r.m
	at := r.in.States(filepath.Dir(r.w.ScratchPath("hidden")))
	var err error
	if r.store, err = hidden.New(m.Engine(), len(r.in.Tokens), r.in.SeqLen, m.Width(), at); err != nil {
		return err
	}
	defer func() { r.store.Close(); r.store = nil }()
	if err := r.store.Embed(m, r.in.Tokens); err != nil {
		return fmt.Errorf("calibration: %w", err)
	}
	if r.stream {
		r.gram = make([]float64, m.Width()*m.Width())
	}
	r.heads = make([][]tensor.Matrix, m.Blocks())
	r.bar = r.in.Progress.Start("rotate", int64(2*m.Blocks()*len(r.in.Tokens)), "sequences")
	blocks := m.Read(0, m.Blocks())
	defer blocks.Close()
	for b := range m.Blocks() {
		if err := r.block(ctx, b, blocks); err != nil {
			return fmt.Errorf("block %d: %w", b, err)
		}
	}
	return nil
}

func (r *rotator) block(ctx context.Context, b int, blocks *model.Reader) error {
	r.bar.Part(fmt.Sprintf("rotate: block %d of %d", b+1, r.m.Blocks()), int64(2*r.store.Len()))
	block, err := blocks.Next()
	if err != nil {
		return err
	}
	defer block.Release()
	for _, branch := range block.Branches() {
		if err := r.branch(ctx, b, branch); err != nil {
			return err
		}
	}
	if !r.stream {
		return nil
	}
	for _, l := range block.Linears() {
		if err := r.take(l); err != nil {
			return err
		}
	}
	return nil
}

// branch takes the sequences past a branch.
func (r *rotator) branch(ctx context.Context, b int, branch *model.Branch) error {
	e, m := r.m.Engine(), r.m
	ones := make([]float32, m.Width())
	for i := range ones {
		ones[i] = 1
	}
	unit := &engine.Norm{W: e.NewVec(ones), Eps: m.Config.NormEps}
	st, stream := m.NewState(), e.NewStream()
	entered, x := e.NewStats(m.Width(), stats.Needs{Gram: true}), e.NewMat(r.in.SeqLen, m.Width())
	var yielded engine.Stats
	var mode model.Mode
	h := r.frame.Heads[b]
	if in := branch.Inputs(); r.opt.Values && h.Fixed == nil && in[len(in)-1].Name+".weight" == h.O {
		yielded = e.NewStats(in[len(in)-1].Linears[0].Cols, stats.Needs{Gram: true})
		mode.Tap = func(at *model.Input, x engine.Mat) {
			if at.Name+".weight" == h.O {
				yielded.Add(x)
			}
		}
	}
	for i := range r.store.Len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := r.store.Get(i)
		if err != nil {
			return err
		}
		if r.stream {
			stream.Norm(x, s, unit)
			entered.Add(x)
		}
		if err := branch.Run(st, s, mode); err != nil {
			return err
		}
		if err := r.store.Put(i, s); err != nil {
			return err
		}
		r.bar.Add(1)
	}
	if r.stream {
		g := entered.Input(r.store.Len()).Gram
		for i := range m.Width() {
			for j := range m.Width() {
				r.gram[i*m.Width()+j] += g.At(i, j)
			}
		}
	}
	if yielded != nil {
		g := yielded.Input(r.store.Len()).Gram
		for q := range r.kvHeads * r.queries {
			own := tensor.NewMatrix(r.headDim, r.headDim)
			for i := range own.Rows {
				for j := range own.Cols {
					own.Data[i*own.Cols+j] = float32(g.At(q*r.headDim+i, q*r.headDim+j))
				}
			}
			r.heads[b] = append(r.heads[b], own)
		}
	}
	return nil
}

// take takes every so many of a Linear's vectors.
func (r *rotator) take(l *model.Linear) error {
	a, ok := r.frame.Axes[l.Name+".weight"]
	if !ok || l.Gate {
		return nil
	}
	w, err := l.Read()
	if err != nil {
		return err
	}
	defer l.Unload()
	n, to := w.Rows, &r.vectors[0]
	var gain []float32
	if a.Rows {
		n, to = w.Cols, &r.vectors[1]
	} else if gain, err = r.m.Gain(a.Norm); err != nil {
		return err
	}
	row := make([]float32, w.Cols)
	first := (r.every - r.at%r.every) % r.every
	r.at += n
	if a.Cols {
		for i := first; i < n; i += r.every {
			w.Row(row, i)
			for j, g := range gain {
				row[j] *= g
			}
			to.Data = append(to.Data, row...)
			to.Rows++
		}
	} else {
		taken := max(0, (n-first+r.every-1)/r.every)
		at := len(to.Data)
		to.Data = append(to.Data, make([]float32, taken*w.Rows)...)
		to.Rows += taken
		for i := range w.Rows {
			w.Row(row, i)
			for k := range taken {
				to.Data[at+k*w.Rows+i] = row[first+k*r.every]
			}
		}
	}
	to.Cols = r.m.Width()
	return nil
}

// learnValues finds the rotations of the heads' values, in the stream's new directions.
func (r *rotator) learnValues(ctx context.Context, res *Result, t *turns) error {
	heads := 0
	for _, b := range t.values {
		heads += len(b)
	}
	if heads == 0 {
		return nil
	}
	bar := r.in.Progress.Start("rotate: the heads' values", int64(heads), "heads")
	var all Measured
	for b, own := range t.values {
		if own == nil {
			continue
		}
		h := r.frame.Heads[b]
		v, err := r.turned(h.V, &turns{q: t.q})
		if err != nil {
			return err
		}
		o, err := r.turned(h.O, &turns{q: t.q})
		if err != nil {
			return err
		}
		for k := range own {
			if err := ctx.Err(); err != nil {
				return err
			}
			var values []float64
			own[k], values = rotate.Learn(r.headDim, r.valueVectors(v, o, h.First, k, r.heads[b]), r.opt.Measure, r.opt.Steps, nil)
			all.Before += values[0] / float64(heads)
			all.After += values[len(values)-1] / float64(heads)
			all.Steps = max(all.Steps, len(values)-1)
			bar.Add(1)
		}
		r.heads[b] = nil
	}
	res.Values = &all
	return nil
}

// valueVectors returns what reads the values of head k, the rows of o by query heads,
// and what makes them, the columns of v.
func (r *rotator) valueVectors(v, o tensor.Matrix, first, k int, grams []tensor.Matrix) []rotate.Vectors {
	d := r.headDim
	made := tensor.NewMatrix(v.Cols, d)
	for i := range d {
		for j, x := range v.Row(first + k*d + i) {
			made.Data[j*d+i] = x
		}
	}
	all := []rotate.Vectors{{V: made}}
	for q := k * r.queries; q < (k+1)*r.queries; q++ {
		read := tensor.NewMatrix(o.Rows, d)
		for i := range o.Rows {
			copy(read.Row(i), o.Row(i)[q*d:(q+1)*d])
		}
		all = append(all, rotate.Vectors{V: read, Gram: grams[q]})
	}
	return all
}

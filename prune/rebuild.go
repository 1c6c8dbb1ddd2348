package prune

import (
	"context"
	"fmt"
	"runtime"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/rebuild"
	"github.com/crepe-llm/crepe/tensor"
)

// rebuilder optimises the kept weights of a branch towards what leaves it in the
// dense model: the input is the pruned stream's.
type rebuilder struct {
	*fitting
	schedule rebuild.Schedule
	linears  []*trained
	grads    map[*model.Linear]engine.Mat
	weights  []float64 // of a sequence's tokens
}

// trained is a Linear at work.
type trained struct {
	linear *model.Linear
	stored *tensor.Weight // as it is written
	master *tensor.Weight // the same in float32, which products read
	w, g   []float32      // master's values; the gradient
	best   []float32      // values of the lowest error on the sequences held out
	adam   *rebuild.Adam
}

// heldOut returns how many of n sequences, the last, say which weights are best and
// are not optimised on.
func heldOut(n int) int {
	if n < 2 {
		return 0
	}
	return max(1, n/8)
}

// rebuild optimises the branch; the streams are before and, the dense one, behind it.
// The error on all calibration tokens, as the weights are stored, does not rise.
func (f *fitting) rebuild(ctx context.Context) (rebuild.Result, error) {
	f.phase(f.b, "rebuild")
	defer timed(&f.seconds.Rebuild)()
	runtime.GC() // the Gram matrices are as large as what follows
	r := &rebuilder{fitting: f, schedule: rebuild.ScheduleOf(f.plan.resolved.Params), grads: map[*model.Linear]engine.Mat{}}
	for _, in := range f.branch.Inputs() {
		for _, l := range in.Linears {
			if f.plan.skip[l.Name] {
				continue
			}
			t, err := newTrained(l)
			if err != nil {
				return rebuild.Result{}, err
			}
			r.linears = append(r.linears, t)
			r.grads[l] = f.m.Engine().NewMat(l.Rows, l.Cols)
		}
	}
	if len(r.linears) == 0 {
		f.bar.Add(int64(f.sequences() * rebuildPasses(f.plan.resolved.Params)))
		return rebuild.Result{}, nil
	}
	result, err := r.run(ctx)
	if err != nil {
		return result, err
	}
	for _, t := range r.linears {
		if err := t.linear.Write(t.stored); err != nil {
			return result, err
		}
	}
	return result, nil
}

// rebuildPasses is how often a sequence passes a branch while it is rebuilt.
func rebuildPasses(p param.Values) int { return 2 + p.Whole("rebuild_epochs") }

func newTrained(l *model.Linear) (*trained, error) {
	stored, err := l.Read()
	if err != nil {
		return nil, err
	}
	n := l.Rows * l.Cols
	t := &trained{linear: l, stored: stored, master: tensor.NewWeight(tensor.F32, l.Rows, l.Cols), w: make([]float32, n), g: make([]float32, n)}
	for i := range l.Rows {
		stored.Row(t.w[i*l.Cols:(i+1)*l.Cols], i)
	}
	t.best = append(t.best, t.w...)
	t.adam = rebuild.NewAdam(t.w)
	return t, t.load(t.w)
}

// load makes values the weight that products read.
func (t *trained) load(values []float32) error {
	for i := range t.linear.Rows {
		t.master.SetRow(i, 0, values[i*t.linear.Cols:(i+1)*t.linear.Cols])
	}
	return t.linear.Write(t.master)
}

// round puts w, rounded to the stored type, into w and returns the stored form. A kept
// weight that would round to 0 or not be finite stays as it was stored.
func (t *trained) round() *tensor.Weight {
	to := tensor.NewWeight(t.stored.DType, t.stored.Rows, t.stored.Cols)
	row, was := make([]float32, to.Cols), make([]float32, to.Cols)
	for i := range to.Rows {
		own := t.w[i*to.Cols : (i+1)*to.Cols]
		to.SetRow(i, 0, own)
		to.Row(row, i)
		t.stored.Row(was, i)
		for j, v := range row {
			if v == 0 || notFinite(v) {
				row[j] = was[j]
			}
		}
		to.SetRow(i, 0, row)
		copy(own, row)
	}
	return to
}

// run optimises and returns what became of the error.
func (r *rebuilder) run(ctx context.Context) (rebuild.Result, error) {
	n := r.sequences()
	train := n - heldOut(n)
	judged := train // the first of those that say which weights are best
	if train == n {
		judged = 0
	}
	before, held, err := r.errors(ctx, train, n)
	if err != nil {
		return rebuild.Result{}, err
	}
	result := rebuild.Result{Before: before, After: before}
	steps, step := r.schedule.Epochs*r.schedule.Steps(train), 0
	for epoch := 1; epoch <= r.schedule.Epochs; epoch++ {
		order := rebuild.Order(train, epoch)
		for lo := 0; lo < train; lo += r.schedule.Batch {
			batch := order[lo:min(lo+r.schedule.Batch, train)]
			if err := r.step(ctx, batch, r.schedule.RateAt(step, steps)); err != nil {
				return result, err
			}
			step++
		}
		now, err := r.error(ctx, judged, n)
		if err != nil {
			return result, err
		}
		if now < held {
			held, result.Epoch = now, epoch
			for _, t := range r.linears {
				copy(t.best, t.w)
			}
		}
	}
	rounded := make([]*tensor.Weight, len(r.linears))
	for i, t := range r.linears {
		copy(t.w, t.best)
		rounded[i] = t.round()
		if err := t.load(t.w); err != nil {
			return result, err
		}
	}
	after, _, err := r.errors(ctx, train, n)
	if err != nil {
		return result, err
	}
	if !(after < before) {
		result.Epoch = 0
		return result, nil
	}
	result.After = after
	for i, t := range r.linears {
		copy(t.stored.Bytes(), rounded[i].Bytes())
	}
	return result, nil
}

// step optimises on a batch of sequences.
func (r *rebuilder) step(ctx context.Context, batch []int, rate float64) error {
	for _, t := range r.linears {
		clear(t.g)
		r.m.Engine().Upload(r.grads[t.linear], t.matrix(t.g))
	}
	tokens := 0
	for _, i := range batch {
		_, n, err := r.loss(ctx, i, r.grads)
		if err != nil {
			return err
		}
		tokens += n
		r.bar.Add(1)
	}
	for _, t := range r.linears {
		r.m.Engine().Download(t.matrix(t.g), r.grads[t.linear])
		t.adam.Step(t.w, t.g, 1/float64(tokens), rate)
		if err := t.load(t.w); err != nil {
			return err
		}
	}
	return nil
}

func (t *trained) matrix(values []float32) tensor.Matrix {
	return tensor.Matrix{Rows: t.linear.Rows, Cols: t.linear.Cols, Data: values}
}

// errors returns the error on all of n sequences, and that on those from train on, or
// on all if none are left.
func (r *rebuilder) errors(ctx context.Context, train, n int) (all, held float64, err error) {
	a, err := r.error(ctx, 0, train)
	if err != nil || train == n {
		return a, a, err
	}
	held, err = r.error(ctx, train, n)
	return (a*float64(train) + held*float64(n-train)) / float64(n), held, err
}

// error returns the mean error of the tokens of sequences lo to hi-1.
func (r *rebuilder) error(ctx context.Context, lo, hi int) (float64, error) {
	sum, tokens := 0.0, 0
	for i := lo; i < hi; i++ {
		loss, n, err := r.loss(ctx, i, nil)
		if err != nil {
			return 0, err
		}
		sum, tokens = sum+loss, tokens+n
		r.bar.Add(1)
	}
	return sum / float64(tokens), nil
}

// loss returns the sum of the errors of sequence i's tokens, and their number.
func (r *rebuilder) loss(ctx context.Context, i int, grads map[*model.Linear]engine.Mat) (float64, int, error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	x, err := r.store.Get(i)
	if err != nil {
		return 0, 0, err
	}
	y, err := r.dense.store.Get(i)
	if err != nil {
		return 0, 0, err
	}
	r.weights = r.fitting.weights(r.weights, y)
	for t := range r.weights {
		r.weights[t] /= float64(y.Cols)
	}
	loss := r.branch.Loss(r.state, x, y, r.weights, grads)
	if notFinite(float32(loss)) {
		return 0, 0, fmt.Errorf("%s: the error of sequence %d is %v while it is rebuilt, want a finite number: a lower rebuild_rate may help", r.branch.Inputs()[0].Name, i, loss)
	}
	return loss, x.Rows, nil
}

// Rebuilt returns what share of the branches' errors, in the mean, rebuilding left;
// false if nothing was rebuilt.
func (r *Report) Rebuilt() (left float64, ok bool) {
	n := 0
	for _, l := range r.Linears {
		if b := l.Rebuilt; b != nil && b.Before > 0 {
			left += b.After / b.Before
			n++
		}
	}
	if n == 0 {
		return 0, false
	}
	return left / float64(n), true
}

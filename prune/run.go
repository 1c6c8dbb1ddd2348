package prune

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/update"
)

// The steps of the journal beside a block's.
const (
	stepRest   = "rest"   // what is not pruned has been copied
	stepDense  = "dense"  // the dense model has been measured
	stepPruned = "pruned" // so has the pruned one
)

func stepBlock(b int) string { return fmt.Sprintf("block %d", b) }

// runner is one run under way.
type runner struct {
	opt    Options
	plan   *Plan
	inv    *checkpoint.Inventory
	m      *model.Model
	w      *checkpoint.Writer
	report *Report

	masks    Masks          // nil: what is written has the zeros
	scores   []float32      // of the Linear at work, reused
	factor   *update.Factor // of the input at work; nil until an update asks for it
	starved  string         // the expert that was last warned of
	store    *hidden.Store  // nil if the method needs no data
	bar      *progress.Bar
	lastSave time.Time
	unsaved  bool // hidden states cannot be copied
}

// Run prunes the model m of inv as opt says; it sets m.ExpertBytes as the memory
// budget demands. An interrupted run (by ctx, an error or a kill) leaves a
// partial folder beside the output that Options.Resume goes on with, and an
// IncompleteError says so; the output folder itself appears whole or not at all.
// The same inputs and recipe give the same bytes on processors with the same
// features, whatever the number of threads and however often the run was
// interrupted.
func Run(ctx context.Context, inv *checkpoint.Inventory, m *model.Model, opt Options) (*Report, error) {
	started := time.Now()
	plan, err := MakePlan(inv, m, opt)
	if err != nil {
		return nil, err
	}
	if err := plan.Check(inv, opt); err != nil {
		return nil, err
	}
	m.ExpertBytes = plan.Memory.Experts
	r := &runner{opt: opt, plan: plan, inv: inv, m: m, lastSave: started}
	r.report = r.newReport()
	defer r.close()
	hashes, err := r.open(ctx)
	switch {
	case errors.Is(err, checkpoint.ErrFinished):
		err = r.recall() // the kill came while the output was put in its place
	case err == nil:
		if err = r.work(ctx); err == nil {
			err = r.commit(hashes)
		}
	}
	if err != nil {
		if r.w != nil {
			err = &IncompleteError{Folder: filepath.Dir(r.w.Folder()), Err: err}
		}
		return nil, err
	}
	r.report.Seconds.Total = time.Since(started).Seconds()
	r.report.PeakRSS = sysinfo.PeakRSS()
	return r.report, nil
}

func (r *runner) newReport() *Report {
	t := r.plan.resolved.Target
	rep := &Report{
		Model: r.opt.Model, Method: r.plan.resolved.Method.Name,
		Recipe: RecipePath(r.opt.Output), Output: r.opt.Output,
		Pattern: "unstructured", Sparsity: Sparsity{Target: t.Sparsity.Float64()},
	}
	if t.Pattern.Of != 0 {
		rep.Pattern = t.Pattern.String()
		rep.Sparsity.Target = t.Pattern.Sparsity().Float64()
	}
	return rep
}

// open begins the output, or takes up an interrupted one.
func (r *runner) open(ctx context.Context) (hashes map[string]string, err error) {
	stop := timed(&r.report.Seconds.Load)
	defer stop()
	bar := r.opt.Progress.Start("hash the input", r.inv.WeightBytes(), "bytes")
	hashes, err = r.inv.Hashes(func(done, total int64) { bar.Set(done) })
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	o := checkpoint.Options{Fingerprint: r.fingerprint(hashes), Overwrite: r.opt.Overwrite}
	begin := checkpoint.Create
	if r.opt.Resume {
		begin = checkpoint.Resume
	}
	r.w, err = begin(r.opt.Output, r.plan.files, r.inv, o)
	if errors.Is(err, checkpoint.ErrNoPartial) {
		r.w, err = checkpoint.Create(r.opt.Output, r.plan.files, r.inv, o)
	}
	return hashes, err
}

func (r *runner) close() {
	r.trim()
	if r.w != nil {
		r.w.Close()
	}
}

// work does every step that the journal does not call done.
func (r *runner) work(ctx context.Context) error {
	if r.opt.Evaluation != nil && !r.w.Done(stepDense) {
		if err := r.measure(ctx, r.m, stepDense); err != nil {
			return err
		}
	}
	if !r.w.Done(stepRest) {
		if err := r.copyRest(ctx); err != nil {
			return err
		}
	}
	if err := r.pruneBlocks(ctx); err != nil {
		return err
	}
	if r.opt.Evaluation != nil && !r.w.Done(stepPruned) {
		return r.measurePruned(ctx)
	}
	return nil
}

// measure notes m's perplexity under step.
func (r *runner) measure(ctx context.Context, m *model.Model, step string) error {
	defer timed(&r.report.Seconds.Eval)()
	res, err := eval.Perplexity(ctx, m, r.opt.Evaluation.Tokens, eval.Options{
		SpillDir: r.spillDir(), Name: "perplexity, " + step, Progress: r.opt.Progress,
	})
	if err != nil {
		return fmt.Errorf("%s model: %w", step, err)
	}
	return r.w.Mark(step, res)
}

// measurePruned measures what has been written, as its reader will find it.
func (r *runner) measurePruned(ctx context.Context) error {
	r.trim()
	inv, m, err := r.openPruned()
	if err != nil {
		return err
	}
	defer inv.Close()
	return r.measure(ctx, m, stepPruned)
}

// trim gives back the memory of the blocks' work, which is done.
func (r *runner) trim() {
	if r.store != nil {
		r.store.Close()
		r.store = nil
	}
	r.scores = nil
	r.m.Trim()
	debug.FreeOSMemory()
}

func (r *runner) openPruned() (*checkpoint.Inventory, *model.Model, error) {
	inv, err := checkpoint.Open(r.w.Folder())
	if err != nil {
		return nil, nil, err
	}
	m, err := model.Open(inv)
	if err != nil {
		inv.Close()
		return nil, nil, err
	}
	m.Compute, m.ExpertBytes = r.m.Compute, r.m.ExpertBytes
	return inv, m, nil
}

// spillDir is where hidden states go that do not fit in memory.
func (r *runner) spillDir() string {
	if r.plan.Memory.Spill {
		return filepath.Dir(r.w.ScratchPath("hidden"))
	}
	return ""
}

// copyRest writes every tensor that no block prunes.
func (r *runner) copyRest(ctx context.Context) error {
	defer timed(&r.report.Seconds.Write)()
	prunable := map[string]bool{}
	for _, l := range r.plan.Linears {
		prunable[l.Name+".weight"] = true
	}
	for _, t := range r.inv.Tensors() {
		if prunable[t.Name] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.w.CopyTensor(t.Name); err != nil {
			return err
		}
	}
	return r.w.Mark(stepRest, nil)
}

// pruneBlocks prunes the blocks that are not done.
func (r *runner) pruneBlocks(ctx context.Context) error {
	done := 0
	for done < r.m.Blocks() && r.w.Done(stepBlock(done)) {
		done++
	}
	r.warnOfFewTokens()
	sequences := 0
	if done < r.m.Blocks() && r.plan.resolved.Method.NeedsData {
		sequences = len(r.opt.Calibration.Tokens)
	}
	const passes = 2 // dense and pruned
	total := int64(passes * sequences * (r.m.Blocks() - done))
	unit := "sequences"
	if sequences == 0 {
		total, unit = int64(r.m.Blocks()-done), "blocks"
	}
	if sequences > 0 {
		if err := r.enter(ctx, done); err != nil {
			return err
		}
	}
	r.bar = r.opt.Progress.Start("prune", total, unit)
	for b := done; b < r.m.Blocks(); b++ {
		if err := r.pruneBlock(ctx, b); err != nil {
			return fmt.Errorf("block %d: %w", b, err)
		}
		if sequences == 0 {
			r.bar.Add(1)
		}
	}
	return nil
}

// pruneBlock takes block b from dense to written, and the hidden states past it.
func (r *runner) pruneBlock(ctx context.Context, b int) error {
	name := fmt.Sprintf("block %d of %d", b+1, r.m.Blocks())
	block, err := r.load(r.m, b)
	if err != nil {
		return err
	}
	defer block.Release()
	var seen map[*model.Input]*stats.Input
	if r.store != nil {
		r.bar.Phase(name + ": calibrate")
		if seen, err = r.observe(ctx, block); err != nil {
			return err
		}
	}
	linears, err := r.pruneLinears(ctx, block, seen)
	if err != nil {
		return err
	}
	last := b == r.m.Blocks()-1
	if r.store != nil && !last {
		r.bar.Phase(name + ": propagate")
		if err := r.propagate(ctx, block); err != nil {
			return err
		}
		if err := r.save(b + 1); err != nil {
			return err
		}
	} else if r.store != nil {
		r.bar.Add(int64(r.store.Len())) // nothing reads what leaves the last block
	}
	defer timed(&r.report.Seconds.Write)()
	return r.w.Mark(stepBlock(b), linears)
}

// pruneLinears prunes and writes every Linear of block. Scores and the scratch
// of a forward pass are both large and never in use at the same time: each is
// collected before the other is taken.
func (r *runner) pruneLinears(ctx context.Context, block model.Block, seen map[*model.Input]*stats.Input) ([]Linear, error) {
	runtime.GC()
	var linears []Linear
	for _, in := range block.Inputs() {
		for _, l := range in.Linears {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			done, err := r.pruneLinear(l, in, seen[in])
			if err != nil {
				return nil, fmt.Errorf("tensor %s.weight: %w", l.Name, err)
			}
			linears = append(linears, done)
		}
		r.factor = nil
		if s := seen[in]; s != nil {
			s.Gram = nil // as large as the factor of the next
		}
	}
	r.scores = nil
	runtime.GC()
	return linears, nil
}

func (r *runner) load(m *model.Model, b int) (model.Block, error) {
	defer timed(&r.report.Seconds.Load)()
	return m.LoadBlock(b)
}

// observe runs every sequence through the dense block and returns what each
// input saw.
func (r *runner) observe(ctx context.Context, block model.Block) (map[*model.Input]*stats.Input, error) {
	defer timed(&r.report.Seconds.Calibrate)()
	acc := map[*model.Input]*stats.Accumulator{}
	for _, in := range block.Inputs() {
		acc[in] = stats.NewAccumulator(in.Linears[0].Cols)
		if u := r.plan.resolved.Update; u != nil && u.NeedsGram && r.plan.anyPruned(in) {
			acc[in].WithGram()
		}
	}
	st := r.m.NewState()
	tap := func(in *model.Input, x tensor.Matrix) { acc[in].Add(x) }
	for i := range r.store.Len() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x, err := r.store.Get(i)
		if err != nil {
			return nil, err
		}
		if err := block.Observe(st, x, tap); err != nil {
			return nil, err
		}
		r.bar.Add(1)
	}
	seen := map[*model.Input]*stats.Input{}
	for _, in := range block.Inputs() {
		s := acc[in].Input(r.store.Len())
		if err := s.Check(); err != nil {
			return nil, fmt.Errorf("input of %s: %w", in.Name, err)
		}
		seen[in] = s
	}
	return seen, nil
}

// pruneLinear scores, masks and writes l.
func (r *runner) pruneLinear(l *model.Linear, in *model.Input, s *stats.Input) (Linear, error) {
	out := Linear{Name: l.Name, Rows: l.Rows, Cols: l.Cols}
	if err := l.Load(); err != nil {
		return out, err
	}
	defer l.Unload()
	if out.Skipped = r.plan.skip[l.Name]; !out.Skipped {
		method, starved := r.method(l, s)
		change := r.plan.resolved.Update
		if starved {
			change = nil
		}
		if change != nil && r.factor == nil {
			if err := r.factorize(in, s); err != nil {
				return out, err
			}
		}
		for _, part := range matrices(r.plan.resolved, l.Parts, l.Rows) {
			kept, err := r.mask(l.W.Slice(part.Lo, part.Hi), method, change, s)
			if err != nil {
				return out, inPart(part, err)
			}
			if r.masks != nil {
				r.masks[l.Name] = append(r.masks[l.Name], kept)
			}
		}
	}
	out.Zeros = l.W.Zeros()
	out.Sparsity = float64(out.Zeros) / float64(l.Rows*l.Cols)
	if r.w == nil {
		return out, nil
	}
	defer timed(&r.report.Seconds.Write)()
	return out, r.w.WriteTensor(l.Name+".weight", l.W.Bytes())
}

// inPart says which part of a Linear err is about, if it is split.
func inPart(p model.Part, err error) error {
	if p.Name != "" {
		return fmt.Errorf("part %s: %w", p.Name, err)
	}
	return err
}

// mask prunes w, a Linear's rows or some of them, and updates it with change,
// if there is one. It returns the mask, nil if change selected.
func (r *runner) mask(w *tensor.Weight, method score.Method, change *update.Method, s *stats.Input) (*mask.Mask, error) {
	n := w.Rows * w.Cols
	if cap(r.scores) < n {
		r.scores = make([]float32, n)
	}
	scores := r.scores[:n]
	var kept *mask.Mask
	if method.Score != nil {
		stop := timed(&r.report.Seconds.Score)
		err := method.Score(scores, w, s, r.plan.resolved.Params)
		stop()
		if err != nil {
			return nil, err
		}
		stop = timed(&r.report.Seconds.Select)
		kept, err = mask.Select(scores, w.Rows, w.Cols, r.plan.resolved.Target)
		stop()
		if err != nil {
			return nil, err
		}
	}
	if change == nil {
		kept.Apply(w)
		return kept, nil
	}
	defer timed(&r.report.Seconds.Update)()
	return kept, change.Run(w, r.factor, kept, r.plan.resolved.Target, scores)
}

// warnOfFewTokens says what a Gram matrix of too few tokens is worth.
func (r *runner) warnOfFewTokens() {
	if u := r.plan.resolved.Update; u == nil || !u.NeedsGram {
		return
	}
	c, cols := r.opt.Calibration, 0
	for _, l := range r.plan.Linears {
		cols = max(cols, l.Cols)
	}
	if n := len(c.Tokens) * c.SeqLen; n < cols {
		r.opt.warn("%d calibration tokens are fewer than the %d columns of the widest Linear: the update fits those tokens, not what the model sees", n, cols)
	}
}

// factorize prepares the update of in's Linears.
func (r *runner) factorize(in *model.Input, s *stats.Input) error {
	defer timed(&r.report.Seconds.Update)()
	f, err := update.Factorize(s.Gram, r.plan.resolved.Target.Pattern)
	if err != nil {
		return fmt.Errorf("input of %s: Gram %w", in.Name, err)
	}
	if f.Damping > update.Damping {
		r.opt.warn("input of %s: Gram matrix was not positive definite; %v of its mean diagonal was added", in.Name, f.Damping)
	}
	r.factor = f
	return nil
}

// MinTokens is what an expert must have seen of the calibration text for its
// activation norms to say more than chance: with fewer tokens than this its
// Linears are pruned by magnitude.
const MinTokens = 64

// method returns what l is scored by: the recipe's method, but magnitude for an
// expert that routing has left with too little data.
func (r *runner) method(l *model.Linear, s *stats.Input) (m score.Method, starved bool) {
	m = r.plan.resolved.Method
	if s == nil || !l.Expert || s.Tokens >= MinTokens {
		return m, false
	}
	expert := l.Name[:strings.LastIndexByte(l.Name, '.')]
	if r.starved != expert {
		r.opt.warn("%s saw %d tokens, fewer than %d: pruned by magnitude", expert, s.Tokens, MinTokens)
	}
	r.starved = expert
	return score.Magnitude, true
}

// propagate runs every sequence through the pruned block. Of experts that are
// not in memory only the output holds what was pruned.
func (r *runner) propagate(ctx context.Context, block model.Block) error {
	defer timed(&r.report.Seconds.Calibrate)()
	if r.m.ExpertBytes > 0 {
		written, err := checkpoint.Open(r.w.Folder())
		if err != nil {
			return err
		}
		defer written.Close()
		if err := block.ReadFrom(written); err != nil {
			return err
		}
	}
	return r.store.Forward(ctx, block, r.m.NewState(), func() { r.bar.Add(1) })
}

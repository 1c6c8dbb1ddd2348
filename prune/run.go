package prune

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/stats"
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

	allocated []allocate.Block // nil: every block gets the recipe's target
	alike     bool             // they turned out the same
	target    pattern.Target   // of the block at work

	masks    Masks           // nil: what is written has the zeros
	scores   []float32       // of the Linear at work, reused
	gram     *refine.Gram    // of the input at work; nil until a refinement needs it
	prepared update.Prepared // for the input at work; nil until a Linear needs it
	starved  string          // the expert that was last warned of
	store    *hidden.Store   // nil if the method needs no data
	entering string          // what its copies are called
	spill    string          // without a writer: the folder of its file, if any
	bar      *progress.Bar
	lastSave time.Time
	unsaved  bool // hidden states cannot be copied
}

// Run prunes the model m of inv as opt says, with as many experts in memory as the
// budget has room for. An interrupted run (by ctx, an error or a kill) leaves a
// partial folder beside the output that Options.Resume goes on with, and an
// IncompleteError says so; the output folder itself appears whole or not at all.
// The same inputs and recipe give the same bytes by the same program and engine
// (instruction level and type of products), whatever the number of threads and
// however often the run was interrupted.
func Run(ctx context.Context, inv *checkpoint.Inventory, m *model.Model, opt Options) (*Report, error) {
	started := time.Now()
	plan, err := MakePlan(inv, m, opt)
	if err != nil {
		return nil, err
	}
	if err := plan.Check(inv, opt); err != nil {
		return nil, err
	}
	m = m.WithExpertBytes(plan.Memory.Experts)
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
	refinement := ""
	if f := r.plan.resolved.Refine; f != nil {
		refinement = f.Name
	}
	rep := &Report{
		Model: r.opt.Model, Method: r.plan.resolved.Method.Name, Refine: refinement,
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
	o := checkpoint.Options{Overwrite: r.opt.Overwrite}
	if o.Provenance, err = r.provenance(hashes); err != nil {
		return nil, err
	}
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
	if err := r.allocate(ctx); err != nil {
		return err
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
	m, err := model.Open(inv, model.Options{Engine: r.m.Engine(), ExpertBytes: r.m.ExpertBytes()})
	if err != nil {
		inv.Close()
		return nil, nil, err
	}
	return inv, m, nil
}

// spillDir is where hidden states go that do not fit in memory.
func (r *runner) spillDir() string {
	if r.w == nil {
		return r.spill
	}
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
	if done < r.m.Blocks() && r.plan.resolved.Observes && r.opt.Masks == nil {
		sequences = len(r.opt.Calibration.Tokens)
	}
	const passes = 2 // dense and pruned
	total := int64(passes * sequences * (r.m.Blocks() - done))
	unit := "sequences"
	if sequences == 0 {
		total, unit = int64(r.m.Blocks()-done), "blocks"
	}
	if sequences > 0 {
		if err := r.enter(ctx, done, enteringPruned); err != nil {
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
	r.target = r.targetOf(b)
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

func (r *runner) load(m *model.Model, b int) (*model.Block, error) {
	defer timed(&r.report.Seconds.Load)()
	return m.LoadBlock(b)
}

// observe runs every sequence through the dense block and returns what each
// input saw.
func (r *runner) observe(ctx context.Context, block *model.Block) (map[*model.Input]*stats.Input, error) {
	defer timed(&r.report.Seconds.Calibrate)()
	acc := accumulators(r.m.Engine(), block, r.plan.observes)
	return r.gather(ctx, block, acc, 0, r.store.Len())
}

// gather adds sequences lo to hi to acc and returns what it has seen of the first hi.
func (r *runner) gather(ctx context.Context, block *model.Block, acc gatherers, lo, hi int) (map[*model.Input]*stats.Input, error) {
	mode := model.Mode{Tap: acc.tap, Keep: true}
	if err := r.store.RunSome(ctx, block, r.m.NewState(), mode, lo, hi, func() { r.bar.Add(1) }); err != nil {
		return nil, err
	}
	return acc.inputs(block, hi)
}

// gatherers are the accumulators of a block's inputs.
type gatherers map[*model.Input]engine.Stats

// accumulators returns those of what needs says of each input.
func accumulators(e engine.Engine, block *model.Block, needs func(in *model.Input) stats.Needs) gatherers {
	acc := gatherers{}
	for _, in := range block.Inputs() {
		acc[in] = e.NewStats(in.Linears[0].Cols, needs(in))
	}
	return acc
}

// norms are the needs of what reads no more of an input.
func norms(*model.Input) stats.Needs { return stats.Needs{} }

func (acc gatherers) tap(in *model.Input, x engine.Mat) { acc[in].Add(x) }

// inputs returns what has been gathered of so many sequences.
func (acc gatherers) inputs(block *model.Block, sequences int) (map[*model.Input]*stats.Input, error) {
	seen := map[*model.Input]*stats.Input{}
	for _, in := range block.Inputs() {
		s := acc[in].Input(sequences)
		if err := s.Check(); err != nil {
			return nil, fmt.Errorf("input of %s: %w", in.Name, err)
		}
		seen[in] = s
	}
	return seen, nil
}

// propagate runs every sequence through the pruned block. Of experts that are
// not in memory only the output holds what was pruned.
func (r *runner) propagate(ctx context.Context, block *model.Block) error {
	defer timed(&r.report.Seconds.Calibrate)()
	if r.m.ExpertBytes() > 0 {
		written, err := checkpoint.Open(r.w.Folder())
		if err != nil {
			return err
		}
		defer written.Close()
		if err := block.ReadFrom(written); err != nil {
			return err
		}
	}
	return r.store.Run(ctx, block, r.m.NewState(), model.Mode{}, func() { r.bar.Add(1) })
}

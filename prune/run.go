package prune

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/provenance"
)

// The steps of the journal beside a block's.
const (
	stepRest   = "rest"   // what is not pruned has been copied
	stepDense  = "dense"  // the dense model has been measured
	stepPruned = "pruned" // so has the pruned one

	stepDiverged = "diverged" // how far the two are apart has been measured
)

func stepBlock(b int) string { return fmt.Sprintf("block %d", b) }

// runner is one run under way.
type runner struct {
	opt    Options
	plan   *Plan
	inv    *checkpoint.Inventory
	m      *model.Model
	dense  *model.Model // m, as it came where it is rotated
	w      *checkpoint.Writer
	report *Report

	rotated *checkpoint.Inventory // inv, if it is the rotated model's

	depends provenance.Record // what the output depends on

	started  time.Time
	shares   shares
	states   states
	measures []LinearMeasure // of all blocks, once they are done
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
	m = m.Plain().With(model.Options{Engine: m.Engine(), ExpertBytes: plan.Memory.Experts, Ahead: plan.Memory.Ahead > 0, KeepHead: plan.Memory.keeps(2 * m.HeadBytes())})
	r := &runner{opt: opt, plan: plan, inv: inv, m: m, dense: m, started: started}
	r.report = r.newReport()
	defer r.close()
	hashes, err := r.begin(ctx)
	switch {
	case errors.Is(err, checkpoint.ErrFinished):
		err = r.recall() // the kill came while the output was put in its place, or after it
	case err == nil:
		if err = r.work(ctx); err == nil {
			err = r.commit(ctx, hashes)
		}
	}
	if err == nil {
		err = r.removeRotation()
	}
	if err != nil {
		return nil, r.incomplete(err)
	}
	r.report.Seconds.Total = time.Since(started).Seconds()
	r.report.PeakRSS = sysinfo.PeakRSS()
	if r.report.Finished {
		_ = fsys.Remove(RecordPath(opt.Output) + fsys.PartialSuffix) // there is one if the kill came while it was written
	} else if err := r.keepRecord(); err != nil { // the output is in its place, whatever becomes of this
		opt.warn("time and memory of the run are not kept: %v", err)
	}
	return r.report, nil
}

// incomplete says, of an error that ended the run, where what is done lies.
func (r *runner) incomplete(err error) error {
	if r.w != nil {
		return &IncompleteError{Folder: filepath.Dir(r.w.Folder()), Err: err}
	}
	if there, _ := r.opt.rotating(); there {
		return &IncompleteError{Folder: rotationPath(r.opt.Output), Err: err}
	}
	return err
}

func (r *runner) newReport() *Report {
	t := r.plan.resolved.Target
	refinement := ""
	if f := r.plan.resolved.Refine; f != nil {
		refinement = f.Name
	}
	rebuilding := ""
	if b := r.plan.resolved.Rebuild; b != nil {
		rebuilding = b.Name
	}
	rep := &Report{
		Model: r.opt.Model, Method: r.plan.resolved.Method.Name, Refine: refinement, Rebuild: rebuilding,
		Recipe: RecipePath(r.opt.Output), Output: r.opt.Output,
		Pattern: "unstructured", Sparsity: Sparsity{Target: t.Sparsity.Float64()},
	}
	if t.Pattern.Of != 0 {
		rep.Pattern = t.Pattern.String()
		rep.Sparsity.Target = t.Pattern.Sparsity().Float64()
	}
	return rep
}

// begin begins the output, or takes up an interrupted one.
func (r *runner) begin(ctx context.Context) (hashes map[string]string, err error) {
	if hashes, err = r.hash(ctx); err != nil {
		return nil, err
	}
	if r.depends, err = r.provenance(hashes); err != nil {
		return nil, err
	}
	if err := r.rotate(ctx, hashes); err != nil {
		return nil, err
	}
	defer timed(&r.report.Seconds.Load)()
	o := checkpoint.Options{Provenance: r.depends, Overwrite: r.opt.Overwrite}
	create := checkpoint.Create
	if r.opt.Resume {
		create = checkpoint.Resume
	}
	r.w, err = create(r.opt.Output, r.plan.files, r.inv, o)
	if errors.Is(err, checkpoint.ErrNoPartial) {
		if r.finished() {
			return nil, checkpoint.ErrFinished
		}
		r.w, err = checkpoint.Create(r.opt.Output, r.plan.files, r.inv, o)
	}
	if err == nil && r.w.Damaged() != "" {
		r.opt.warn("%s: what came after it is computed again", r.w.Damaged())
	}
	return hashes, err
}

// hash returns the inputs' hashes.
func (r *runner) hash(ctx context.Context) (map[string]string, error) {
	defer timed(&r.report.Seconds.Load)()
	hashes, err := r.inv.Hashes(r.opt.Progress.Bytes("hash the input"))
	if err == nil {
		err = ctx.Err()
	}
	return hashes, err
}

func (r *runner) close() {
	r.trim()
	if r.w != nil {
		r.w.Close()
	}
	if r.rotated != nil {
		r.rotated.Close()
	}
}

// work does every step that the journal does not call done.
func (r *runner) work(ctx context.Context) (err error) {
	defer engine.Recover(&err)
	if r.opt.Evaluation != nil && !r.w.Done(stepDense) {
		if err := r.measure(ctx, r.dense, stepDense, r.keepDense); err != nil {
			return err
		}
	}
	if !r.w.Done(stepRest) {
		if err := r.copyRest(ctx); err != nil {
			return err
		}
	}
	r.states = states{w: r.w, warn: r.opt.warn, written: r.started}
	if err := r.allocate(ctx); err != nil {
		return err
	}
	if err := r.prune(ctx); err != nil {
		return err
	}
	if r.opt.Evaluation != nil && !r.w.Done(stepDiverged) {
		return r.measurePruned(ctx)
	}
	return nil
}

// measure notes m's perplexity under step. last, if not nil, gets what its last block
// puts out.
func (r *runner) measure(ctx context.Context, m *model.Model, step string, last func(*hidden.Store) error) error {
	defer timed(&r.report.Seconds.Eval)()
	res, err := eval.Perplexity(ctx, m, r.opt.Evaluation.Tokens, eval.Options{
		States: r.place(), Name: "perplexity, " + step, Progress: r.opt.Progress, Last: last,
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
	var apart *eval.Divergence
	if r.w.Done(stepPruned) { // an interruption fell between the two
		apart, err = r.diverge(ctx, m, nil)
	} else {
		err = r.measure(ctx, m, stepPruned, func(now *hidden.Store) (err error) {
			apart, err = r.diverge(ctx, m, now)
			return err
		})
	}
	if err != nil {
		return err
	}
	return r.w.Mark(stepDiverged, apart)
}

// trim gives back the memory of the blocks' work, which is done.
func (r *runner) trim() {
	r.m.Trim()
	debug.FreeOSMemory()
}

func (r *runner) openPruned() (*checkpoint.Inventory, *model.Model, error) {
	inv, err := checkpoint.Open(r.w.Folder())
	if err != nil {
		return nil, nil, err
	}
	m, err := model.Open(inv, r.m.Options())
	if err != nil {
		inv.Close()
		return nil, nil, err
	}
	return inv, m, nil
}

// place returns where hidden states are kept: a file lies beside the output.
func (r *runner) place() engine.Place {
	return r.plan.Memory.place(filepath.Dir(r.w.ScratchPath("hidden")))
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

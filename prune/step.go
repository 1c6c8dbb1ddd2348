package prune

import (
	"context"
	"errors"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// step is a part of the work on a matrix: scoring, selecting, refining, updating.
// Each goes on with what those before it left in the job, and says what it reads
// and takes, so that the driver gathers statistics and plans memory for all of
// them without knowing any.
type step struct {
	name    string                    // for progress; empty: too quick to be named
	seconds func(s *Seconds) *float64 // where its time is counted
	needs   stats.Needs               // of the input
	only    func(attention bool) bool // the Linears it works on; nil: all
	cost    func(rows, cols int) cost // nil: nothing that counts
	run     func(ctx context.Context, j *job) error

	// share makes what all matrices of an input share, from its Gram matrix; run
	// finds it in job.shared. nil: nothing is, and run itself reads the Gram matrix,
	// if the step needs one.
	share func(in *input) (any, error)
}

// cost is what a step takes for a matrix.
type cost struct {
	kept  int64 // bytes, as long as the matrix is at work: its scores and mask
	brief int64 // bytes, while the step runs

	// What is made of the Gram matrix: bytes that making it takes, bytes that are
	// held while the matrices of the input are at work, and bytes that a run takes
	// beside them.
	shared, held, run int64

	flop       float64 // operations in float32 of a run
	sharedFLOP float64 // and of what the matrices of an input share
}

// on reports whether s works on a Linear that is of the attention or not.
func (s *step) on(attention bool) bool { return s.only == nil || s.only(attention) }

// costOf returns the cost of s.
func (s *step) costOf(rows, cols int) cost {
	if s.cost == nil {
		return cost{}
	}
	return s.cost(rows, cols)
}

// job is a matrix on its way through the steps: a Linear, or a part of a fused one.
type job struct {
	linear *model.Linear
	part   model.Part
	at     int            // which of the Linear's matrices it is
	w      *tensor.Weight // changed in place
	stored *tensor.Weight // the dense weight, which the result goes to, where w is another in float32; else nil
	input  *input
	shared any            // what the step at work shares, see step.share
	target pattern.Target // of the block
	report *LinearReport  // of the Linear
	memory *buffer        // for scores

	selected *Selected // where it is counted

	engine engine.Engine
	score  func() error  // scores on the host
	scored engine.Scores // where the engine has the weight; nil: there are none

	scores []float32  // row-major; nil before work
	order  []int      // of the columns in N:M's groups; nil: as they are
	kept   *mask.Mask // nil before one is selected, and where an update selects
	masked bool       // w is as it came but for what kept prunes

	threshold *Threshold // of the selection; nil if nothing measures, or none is known
}

// work returns memory for a value of each weight: the scores, until an update
// works in it.
func (j *job) work() []float32 {
	if j.scores == nil {
		j.scores = j.memory.take(j.w.Rows * j.w.Cols)
	}
	return j.scores
}

// hostScores returns the scores in the host's memory.
func (j *job) hostScores() ([]float32, error) {
	if j.scored == nil || j.scores != nil {
		return j.scores, nil
	}
	if err := j.scored.Read(j.work()); err != nil {
		return j.scores, j.refused()
	}
	return j.scores, nil
}

// refused returns what is wrong with a weight, a statistic or a score that the engine
// refuses: the host looks for it.
func (j *job) refused() error {
	if err := j.score(); err != nil {
		return err
	}
	_, err := mask.Select(j.scores, j.w.Rows, j.w.Cols, j.target)
	if err == nil {
		err = errors.New("the engine finds scores that are not finite, and the host finds none")
	}
	return err
}

// release gives up what the matrix held for the steps.
func (j *job) release() {
	if j.scored != nil {
		j.scored.Release()
	}
	j.w, j.scores, j.scored, j.score = nil, nil, nil, nil
}

// dense returns the weight as it came, until the step that sets weights to zero.
func (j *job) dense() *tensor.Weight {
	if j.stored != nil {
		return j.stored
	}
	return j.w
}

// buffer is memory that is used again and again.
type buffer struct{ values []float32 }

// take returns n values of any content, until the next take.
func (b *buffer) take(n int) []float32 {
	if cap(b.values) < n {
		b.values = make([]float32, n)
	}
	return b.values[:n]
}

// stepsOf returns the steps of a recipe, in their order.
func stepsOf(r recipe.Resolved) []step {
	var steps []step
	selects := r.Method.Score == nil // the update does
	switch {
	case !selects:
		steps = append(steps, scoring(r.Method, r.ParamsOf))
	case r.Permute != nil:
		defaults := score.RIA.Defaults()
		steps = append(steps, scoring(score.RIA, func(string) param.Values { return defaults })) // an update has none before it begins
	}
	if r.Permute != nil {
		steps = append(steps, ordering(*r.Permute, r.Params, r.Target.Pattern))
	}
	if !selects {
		steps = append(steps, selecting())
	}
	if r.Fit.Dense {
		steps = append(steps, retargeting())
	}
	if r.Refine != nil {
		steps = append(steps, refining(*r.Refine, r.Params))
	}
	switch {
	case r.Update == nil:
		steps = append(steps, applying())
	case selects && r.Permute != nil:
		steps = append(steps, updatingInOrder(*r.Update, r.Params, r.Target.Pattern))
	default:
		steps = append(steps, updating(*r.Update, r.Params, r.Target.Pattern, selects))
	}
	return steps
}

// withoutData returns the steps for an expert whose statistics say too little:
// those of r, but by magnitude, and with nothing that reads statistics.
func withoutData(r recipe.Resolved) []step {
	r.Method, r.Refine, r.Update, r.Fit = score.Magnitude, nil, nil, fit.Options{}
	return stepsOf(r)
}

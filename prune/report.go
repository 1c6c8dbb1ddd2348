package prune

import (
	"time"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/pack"
	"github.com/crepe-llm/crepe/rebuild"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/rotate/rotated"
)

// Report is what a run did, as crepe prune --json prints it.
type Report struct {
	Model    string       `json:"model"`
	Method   string       `json:"method"`
	Refine   string       `json:"refine,omitempty"`
	Rebuild  string       `json:"rebuild,omitempty"`
	Recipe   string       `json:"recipe"`  // the file it was written to
	Pattern  string       `json:"pattern"` // "2:4"; "unstructured" without N:M
	Sparsity Sparsity     `json:"sparsity"`
	Dense    *eval.Result `json:"dense"` // null if not measured
	Pruned   *eval.Result `json:"pruned"`

	// Diverged is how far predictions are from the dense model's on the first
	// divergedWindows windows; nil if not measured, or if one of the two has no
	// finite likelihood there.
	Diverged *eval.Divergence `json:"diverged,omitempty"`

	Linears []LinearReport `json:"linears"`

	Packed *pack.Result `json:"packed,omitempty"` // nil: the output is plain

	Rotation   *rotated.Result `json:"rotation,omitempty"`   // nil: nothing was rotated
	Allocation *Allocation     `json:"allocation,omitempty"` // nil: every block gets the same share

	// Selected is how many matrices this process scored and selected in on the device that
	// computes, and on the host: where it has no device, or where that knows no such score.
	Selected Selected `json:"selected"`

	Seconds Seconds `json:"seconds"`
	PeakRSS int64   `json:"peak_rss_bytes"` // 0 where the system does not say
	Output  string  `json:"output"`

	Finished bool `json:"finished,omitempty"` // by an earlier run: Resume found nothing left to do
}

// Sparsity is the share of zeros in the pruned Linears: as asked, and as
// counted in what was written.
type Sparsity struct {
	Target   float64 `json:"target"`
	Measured float64 `json:"measured"`
}

// Selected counts matrices by where their masks were made, which are the same.
type Selected struct {
	Device int `json:"device"`
	Host   int `json:"host"`
}

// LinearReport is one Linear of the output.
type LinearReport struct {
	Name     string  `json:"name"`
	Rows     int     `json:"rows"` // out
	Cols     int     `json:"cols"` // in
	Sparsity float64 `json:"sparsity"`
	Skipped  bool    `json:"skipped,omitempty"` // left dense as the recipe asks
	Zeros    int     `json:"zeros"`

	Permuted []Permutation `json:"permuted,omitempty"` // one, or one a part of a split Linear; none if columns stay

	Refined *refine.Result `json:"refined,omitempty"` // nil if its mask is as it was selected

	// Rebuilt is of the attention or MLP that it is the last Linear of; nil for
	// others, and where nothing is rebuilt.
	Rebuilt *rebuild.Result `json:"rebuilt,omitempty"`
}

// Seconds is where the time of this process went. A resumed run counts only
// what it did itself.
type Seconds struct {
	Load      float64 `json:"load"`
	Rotate    float64 `json:"rotate"`
	Allocate  float64 `json:"allocate"`
	Calibrate float64 `json:"calibrate"`
	Score     float64 `json:"score"`
	Select    float64 `json:"select"`
	Permute   float64 `json:"permute"`
	Refine    float64 `json:"refine"`
	Update    float64 `json:"update"`
	Rebuild   float64 `json:"rebuild"`
	Measure   float64 `json:"measure"` // what MeasuresName holds
	Write     float64 `json:"write"`
	Eval      float64 `json:"eval"`
	Total     float64 `json:"total"`
}

// timed adds the time until the returned function is called to *s.
func timed(s *float64) func() {
	start := time.Now()
	return func() { *s += time.Since(start).Seconds() }
}

// measured returns the share of zeros over the Linears that were pruned.
func measured(linears []LinearReport) float64 {
	zeros, total := 0, 0
	for _, l := range linears {
		if !l.Skipped {
			zeros += l.Zeros
			total += l.Rows * l.Cols
		}
	}
	if total == 0 {
		return 0
	}
	return float64(zeros) / float64(total)
}

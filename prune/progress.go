package prune

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/provenance"
)

// UnderWay is what a run has done that is not finished: one at work, or one that was
// interrupted.
type UnderWay struct {
	Folder     string // that is being filled
	Provenance provenance.Record
	Dense      *eval.Result // nil: not measured yet, or not to be
	Blocks     int          // that are pruned
	Linears    []LinearReport
	Measures   []LinearMeasure
	Pruned     *eval.Result     // nil: not measured yet, or not to be
	Diverged   *eval.Divergence // the same
}

// ReadUnderWay returns how far the run to the output folder is; if there is none, the
// error is checkpoint.ErrNoPartial.
func ReadUnderWay(output string) (*UnderWay, error) {
	s, err := checkpoint.Peek(output)
	if err != nil {
		return nil, err
	}
	u := &UnderWay{Folder: s.Folder, Provenance: s.Provenance}
	for _, step := range s.Steps {
		var err error
		switch step.Name {
		case stepDense:
			err = json.Unmarshal(step.Info, &u.Dense)
		case stepPruned:
			err = json.Unmarshal(step.Info, &u.Pruned)
		case stepDiverged:
			err = json.Unmarshal(step.Info, &u.Diverged)
		case stepBlock(u.Blocks):
			var done blockDone
			err = json.Unmarshal(step.Info, &done)
			u.Blocks++
			u.Linears, u.Measures = append(u.Linears, done.Linears...), append(u.Measures, done.Measures...)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: step %q: %w", filepath.Dir(s.Folder), step.Name, err)
		}
	}
	return u, nil
}

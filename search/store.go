package search

import (
	"context"
	"fmt"
	"strings"
)

// Trial is one answered question of a sampler.
type Trial struct {
	Number int       // from 0, without gaps
	X      []float64 // in the unit cube
	Value  float64
}

// Verification is one candidate of stage 2, verified or given up.
type Verification struct {
	Number    int    // from 0, in the order of the work
	Candidate string // the candidate as JSON, its key
	Result    string // what came out, as JSON
}

// Field is one thing that a study depends on.
type Field struct{ Name, Value string }

// Store keeps one study: what it searches, and every trial and verification as
// soon as it is finished. Each method is one transaction. It is all that the
// search asks of a database, so that one shared by many machines can follow.
type Store interface {
	// Begin makes the study, or finds that of an earlier run; that has to be of
	// the same fields, else the error is a *MismatchError.
	Begin(ctx context.Context, study []Field) error

	Trials(ctx context.Context) ([]Trial, error)
	AddTrial(ctx context.Context, t Trial) error

	Verifications(ctx context.Context) ([]Verification, error)
	AddVerification(ctx context.Context, v Verification) error

	Close() error
}

// MismatchError says that a study exists already and is another one.
type MismatchError struct {
	Store     string // its file
	Have, Ask []Field
}

func (e *MismatchError) Error() string {
	var diff []string
	have := map[string]string{}
	for _, f := range e.Have {
		have[f.Name] = f.Value
	}
	for _, f := range e.Ask {
		if have[f.Name] != f.Value {
			diff = append(diff, fmt.Sprintf("%s is %s there, %s here", f.Name, orNone(have[f.Name]), orNone(f.Value)))
		}
	}
	return fmt.Sprintf("%s holds another study: %s; name another file, or remove it", e.Store, strings.Join(diff, "; "))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

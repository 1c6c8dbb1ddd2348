package search

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/crepe-llm/crepe/provenance"
)

// Store keeps studies by name. It is all that a search asks of a database, so
// that one shared by many machines can follow.
type Store interface {
	// Study makes the study called name, or finds that of an earlier run; its
	// results have to depend on the same, else the error is a *MismatchError.
	Study(ctx context.Context, name string, p provenance.Record) (Study, error)

	// Forget removes the study called name with all its records, if there is one.
	Forget(ctx context.Context, name string) error

	Close() error
}

// Study keeps what is finished, as soon as it is. Each method is one
// transaction.
type Study interface {
	// Records returns those of a kind in the order in which they were added.
	Records(ctx context.Context, kind string) ([]Record, error)

	// Add adds a record. There is none of its kind and key.
	Add(ctx context.Context, kind string, r Record) error

	// Remove removes the record of a kind and key, if there is one.
	Remove(ctx context.Context, kind, key string) error
}

// Record is one finished piece of work.
type Record struct {
	Key   string // what it is, within its kind
	Value string // what came out
}

// Saved is a study as a store holds it.
type Saved struct {
	Name       string
	Provenance provenance.Record
	Records    []SavedRecord // of all kinds, in the order in which they were added
}

// SavedRecord is a record and its kind.
type SavedRecord struct {
	Kind string
	Record
}

// Of returns the records of a kind.
func (s *Saved) Of(kind string) []Record {
	var all []Record
	for _, r := range s.Records {
		if r.Kind == kind {
			all = append(all, r.Record)
		}
	}
	return all
}

// MismatchError says that a study exists already and is another one.
type MismatchError struct {
	Store, Study string // the file, and the name in it
	Have, Ask    provenance.Record
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s holds another %s: %s; name another file, or remove it", e.Store, e.Study, provenance.Differences(e.Have, e.Ask))
}

// Trial is one answered question of a sampler.
type Trial struct {
	Number int       // from 0, without gaps
	X      []float64 // in the unit cube
	Value  float64

	// Of says for readers what X stands for. The sampler does not need it.
	Of json.RawMessage `json:",omitempty"`
}

const trialKind = "trial"

// Trials returns the trials of a study in their order.
func Trials(ctx context.Context, s Study) ([]Trial, error) {
	records, err := s.Records(ctx, trialKind)
	if err != nil {
		return nil, err
	}
	return parseTrials(records)
}

// Trials returns the trials of s in their order.
func (s *Saved) Trials() ([]Trial, error) { return parseTrials(s.Of(trialKind)) }

func parseTrials(records []Record) ([]Trial, error) {
	trials := make([]Trial, len(records))
	for i, r := range records {
		if err := json.Unmarshal([]byte(r.Value), &trials[i]); err != nil || r.Key != strconv.Itoa(i) || trials[i].Number != i {
			return nil, fmt.Errorf("trial %s is %q, want trial %d", r.Key, r.Value, i)
		}
	}
	return trials, nil
}

// AddTrial adds t, whose numbers are finite, to a study.
func AddTrial(ctx context.Context, s Study, t Trial) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return s.Add(ctx, trialKind, Record{Key: strconv.Itoa(t.Number), Value: string(text)})
}

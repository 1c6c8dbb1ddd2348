package prune

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/regular"
)

// RecordVersion is that of the form that this program writes, and the newest that it
// reads.
const RecordVersion = 1

// Record is what is told of a run beside its output, in NAME.run.json: what differs
// from run to run, and so has no place in the output.
type Record struct {
	Version    int       `json:"version"`
	Provenance string    `json:"provenance"` // the manifest's, which the record belongs to
	Model      string    `json:"model"`      // as it was named
	Finished   time.Time `json:"finished"`
	Seconds    Seconds   `json:"seconds"`        // of the process that finished the run
	PeakRSS    int64     `json:"peak_rss_bytes"` // of that; 0 where the system does not say
	Resumed    bool      `json:"resumed,omitempty"`
}

// RecordPath returns where the record of a run is written: beside its output.
func RecordPath(output string) string { return filepath.Clean(output) + ".run.json" }

// keepRecord writes the record of a run that is finished.
func (r *runner) keepRecord() error {
	text, err := json.MarshalIndent(Record{
		Version: RecordVersion, Provenance: r.depends.Key(), Model: r.opt.Model, Finished: time.Now().UTC().Truncate(time.Second),
		Seconds: r.report.Seconds, PeakRSS: r.report.PeakRSS, Resumed: r.opt.Resume,
	}, "", "  ")
	if err != nil {
		return err
	}
	return fsys.WriteFile(RecordPath(r.opt.Output), append(text, '\n'))
}

// maxRecord is far more than a record has, in bytes.
const maxRecord = 1 << 20

// ReadRecord returns the record of the run that wrote output; if there is none it is
// fs.ErrNotExist.
func ReadRecord(output string) (*Record, error) {
	path := RecordPath(output)
	text, err := regular.Read(path, maxRecord)
	if err != nil {
		return nil, err
	}
	var rec Record
	if err := json.Unmarshal(text, &rec); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if rec.Version < 1 || rec.Version > RecordVersion {
		return nil, fmt.Errorf("%s: version %d, want 1 to %d", path, rec.Version, RecordVersion)
	}
	return &rec, nil
}

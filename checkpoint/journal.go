package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/provenance"
)

// journalVersion changes when a partial folder of another version of crepe
// could not be gone on with.
const journalVersion = 2

// A line of the journal is one of three: the begin, written when the partial
// folder's skeleton is complete and synced; a step that is done, with all its
// tensors synced; the end, when nothing is left to do but renaming.
type line struct {
	Begin   *begin          `json:"begin,omitempty"`
	Done    string          `json:"done,omitempty"`
	Tensors []string        `json:"tensors,omitempty"` // written since the line before
	Info    json.RawMessage `json:"info,omitempty"`    // the driver's
	Commit  bool            `json:"commit,omitempty"`
}

// begin says what a partial folder is made from.
type begin struct {
	Version    int               `json:"version"`
	Plan       string            `json:"plan"` // Plan.Fingerprint
	Provenance provenance.Record `json:"provenance"`
	Overwrite  bool              `json:"overwrite,omitempty"`
}

// journal is the file beside a partial folder that says how far it is. Lines
// are appended and synced one by one, so only the last can be torn by a kill
// or a power cut; it is then as if it had not been written.
type journal struct {
	f *fsys.File
}

// readJournal returns the complete lines of the journal at path and their
// length in bytes; none if there is no journal or not even its begin.
func readJournal(path string) ([]line, int64, error) {
	f, err := fsys.Reopen(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, 0, err
	}
	var lines []line
	for at := 0; at < len(text); {
		n := bytes.IndexByte(text[at:], '\n') + 1
		l, err := parseLine(text[at : at+n])
		if err != nil {
			if torn := n == 0 || at+n == len(text); torn {
				return lines, int64(at), nil
			}
			return nil, 0, fmt.Errorf("%s: line %d: %w", path, len(lines)+1, err)
		}
		if first := len(lines) == 0; first != (l.Begin != nil) {
			return nil, 0, fmt.Errorf("%s: line %d: want the begin, and only there", path, len(lines)+1)
		}
		lines = append(lines, l)
		at += n
	}
	return lines, int64(len(text)), nil
}

func parseLine(text []byte) (l line, err error) {
	if len(text) == 0 {
		return l, errors.New("no end of line")
	}
	return l, json.Unmarshal(text, &l)
}

// createJournal makes an empty journal.
func createJournal(path string) (*journal, error) {
	f, err := fsys.Create(path, 0o666)
	if err != nil {
		return nil, err
	}
	return &journal{f}, nil
}

// openJournal opens the journal for appending after its first size bytes.
func openJournal(path string, size int64) (*journal, error) {
	f, err := fsys.Reopen(path)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(size)
	if err == nil {
		_, err = f.Seek(size, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &journal{f}, nil
}

// append adds a line and waits until it is on disk.
func (j *journal) append(l line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := j.f.Write(append(text, '\n')); err != nil {
		return diskError(j.f.Name(), err)
	}
	return diskError(j.f.Name(), j.f.Sync())
}

// check compares what a journal was begun with to what is now asked for.
func (b *begin) check(now begin) error {
	switch diff := provenance.Differences(b.Provenance, now.Provenance); {
	case b.Version != now.Version:
		return fmt.Errorf("it is of version %d, this program writes %d", b.Version, now.Version)
	case diff != "":
		return fmt.Errorf("%s: go on with what it was begun with, or write to a different output folder", diff)
	case b.Plan != now.Plan:
		return fmt.Errorf("its layout is another\nthen: %s\nnow:  %s", b.Plan, now.Plan)
	}
	return nil
}

package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

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
	Sums    []uint32        `json:"sums,omitempty"`    // CRC-32C of each
	Info    json.RawMessage `json:"info,omitempty"`    // the driver's
	Commit  bool            `json:"commit,omitempty"`
	Made    bool            `json:"made,omitempty"` // by CommitMade
}

// begin says what a partial folder is made from, and its aux files' SHA-256.
type begin struct {
	Version    int               `json:"version"`
	Plan       string            `json:"plan"` // Plan.Fingerprint
	Provenance provenance.Record `json:"provenance"`
	Aux        map[string]string `json:"aux,omitempty"`
	Overwrite  bool              `json:"overwrite,omitempty"`
}

// journal is the file beside a partial folder that says how far it is. Lines, each
// behind its checksum, are appended and synced one by one, so only the last can be
// torn by a kill or a power cut; it is then as if it had not been written.
type journal struct {
	f *fsys.File
}

// maxJournal bounds a journal: that of a model with 20,000 Linears, each with its
// order of columns, has some hundred MB.
const maxJournal = 1 << 30 // bytes

// readJournal returns the lines of the journal at path up to the first that is torn
// or damaged, and where each ends, in bytes; none if there is no journal or not even
// its begin. damaged says what is wrong if it is not just the last line torn.
func readJournal(path string) (lines []line, ends []int64, damaged string, err error) {
	f, err := fsys.Reopen(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, "", nil
	}
	if err != nil {
		return nil, nil, "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && st.Size() > maxJournal {
		err = fmt.Errorf("%s: %d bytes, want at most %d", path, st.Size(), maxJournal)
	}
	if err != nil {
		return nil, nil, "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return nil, nil, "", err
	}
	return parseJournal(path, text)
}

// parseJournal is readJournal of the text of the one at path.
func parseJournal(path string, text []byte) (lines []line, ends []int64, damaged string, err error) {
	for at := 0; at < len(text); {
		n := bytes.IndexByte(text[at:], '\n') + 1
		l, ok := parseLine(text[at : at+n])
		if at == 0 && !ok && otherVersion(text[:n], &l) {
			return []line{l}, []int64{int64(n)}, "", nil
		}
		if !ok {
			if torn := n == 0 || at+n == len(text); !torn {
				damaged = fmt.Sprintf("%s: line %d is damaged", path, len(lines)+1)
			}
			break
		}
		if first := len(lines) == 0; first != (l.Begin != nil) {
			return nil, nil, "", fmt.Errorf("%s: line %d: want \"begin\" in the first line, and in no other", path, len(lines)+1)
		}
		at += n
		lines, ends = append(lines, l), append(ends, int64(at))
	}
	if len(lines) == 0 && damaged != "" {
		return nil, nil, "", errors.New(damaged)
	}
	return lines, ends, damaged, nil
}

// otherVersion reports whether text is the begin of a journal of another version,
// which may have no checksum.
func otherVersion(text []byte, l *line) bool {
	return json.Unmarshal(text, l) == nil && l.Begin != nil && l.Begin.Version != journalVersion
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// formatLine returns l as "CRC-32C of the rest, hexadecimal, a space, the rest",
// which is JSON.
func formatLine(l line) ([]byte, error) {
	text, err := json.Marshal(l)
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, castagnoli), text), err
}

// parseLine reads what formatLine writes; ok is false if it is anything else.
func parseLine(text []byte) (l line, ok bool) {
	sum, rest, _ := bytes.Cut(bytes.TrimSuffix(text, []byte("\n")), []byte(" "))
	if len(rest) == 0 || !bytes.Equal(sum, fmt.Appendf(nil, "%08x", crc32.Checksum(rest, castagnoli))) {
		return l, false
	}
	return l, json.Unmarshal(rest, &l) == nil
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
	text, err := formatLine(l)
	if err != nil {
		return err
	}
	if _, err := j.f.Write(text); err != nil {
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
	case !maps.Equal(b.Aux, now.Aux):
		return fmt.Errorf("%s changed since it began: write to a different output folder", strings.Join(changed(b.Aux, now.Aux), ", "))
	case b.Plan != now.Plan:
		return fmt.Errorf("its layout differs\nthen: %s\nnow:  %s", b.Plan, now.Plan)
	}
	return nil
}

// changed returns the names of the files that differ.
func changed(a, b map[string]string) []string {
	names := map[string]bool{}
	for name, sum := range a {
		names[name] = b[name] != sum
	}
	for name, sum := range b {
		names[name] = a[name] != sum
	}
	maps.DeleteFunc(names, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(names))
}

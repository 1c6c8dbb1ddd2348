package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/provenance"
)

// State is how far an output is that is not complete.
type State struct {
	Folder     string // that is being filled
	Provenance provenance.Record
	Steps      []Step // that are done, in their order
}

// Step is a step that Writer.Mark noted, and what was kept with it.
type Step struct {
	Name string
	Info json.RawMessage
}

// Peek returns how far the output folder dir is, by the journal that a run at work,
// or an interrupted one, has beside it. It takes no lock and changes nothing. Without
// a journal it is ErrNoPartial.
func Peek(dir string) (*State, error) {
	target, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	partial := partialPath(target)
	path := filepath.Join(partial, journalName)
	text, err := regular.Read(path, maxJournal)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
		return nil, fmt.Errorf("output folder %s: %w: there is no journal in %s", dir, ErrNoPartial, partial)
	}
	if err != nil {
		return nil, err
	}
	lines, _, _, err := parseJournal(path, text)
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("output folder %s: %w: %s holds nothing yet", dir, ErrNoPartial, path)
	}
	if v := lines[0].Begin.Version; v != journalVersion {
		return nil, fmt.Errorf("%s: its journal is of version %d, this program reads %d", partial, v, journalVersion)
	}
	s := &State{Folder: filepath.Join(partial, outName), Provenance: lines[0].Begin.Provenance}
	for _, l := range lines[1:] {
		if l.Done != "" {
			s.Steps = append(s.Steps, Step{l.Done, l.Info})
		}
	}
	return s, nil
}

// PartialOf returns the output folder that the folder at path was left for by a run
// at work or interrupted; false if its name is not that of one.
func PartialOf(path string) (output string, ok bool) {
	dir, name := filepath.Split(filepath.Clean(path))
	name, dot := strings.CutPrefix(name, ".")
	name, ends := strings.CutSuffix(name, partialSuffix)
	return filepath.Join(dir, name), dot && ends && name != ""
}

// SignsOfProgress are the files, in an output folder and in the folder beside it in
// which it is made, that change whenever there is more to read.
var SignsOfProgress = []string{ManifestName, journalName}

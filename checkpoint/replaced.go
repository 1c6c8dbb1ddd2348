package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/internal/regular"
)

// ManifestName is the file in an output folder that says how it was made.
const ManifestName = "crepe.json"

// MeasuresName is the file beside it with what the run measured of each Linear.
const MeasuresName = "crepe-measures.json"

// MaxManifest is what it may have: that of a model with 20,000 Linears, each with
// its order of columns, has some hundred MB.
const MaxManifest = 1 << 30 // bytes

// PackRecordName is the file in a packed folder that says what was packed.
const PackRecordName = "crepe-pack.json"

// written returns an error unless dir has the manifest of a run, or the record of a
// packing.
func written(dir string) error {
	err := writtenByRun(dir)
	if err != nil && packedBy(dir) {
		return nil
	}
	return err
}

// packedBy reports whether dir has the record of a packing.
func packedBy(dir string) bool {
	path := filepath.Join(dir, PackRecordName)
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return false
	}
	var r struct {
		Crepe, Format string
	}
	text, err := regular.Read(path, MaxManifest)
	return err == nil && json.Unmarshal(text, &r) == nil && r.Crepe != "" && r.Format != ""
}

func writtenByRun(dir string) error {
	path := filepath.Join(dir, ManifestName)
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("no %s in it", ManifestName)
	}
	text, err := regular.Read(path, MaxManifest)
	if err != nil {
		return err
	}
	var m struct {
		Crepe  string          `json:"crepe"`
		Recipe json.RawMessage `json:"recipe"`
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Crepe == "" || m.Recipe == nil {
		return fmt.Errorf("its %s is not that of a run", ManifestName)
	}
	return nil
}

func names(entries []fs.DirEntry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Replaced returns the names in what an output with Options.Overwrite deletes: of
// the folder dir, and of what an interrupted run has left beside it.
func Replaced(dir string) (output []string, partial string, err error) {
	target, err := resolve(dir)
	if err != nil {
		return nil, "", err
	}
	entries, err := os.ReadDir(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	if _, err := os.Lstat(partialPath(target)); err == nil {
		partial = partialPath(target)
	}
	return names(entries), partial, nil
}

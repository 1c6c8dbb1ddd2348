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

// RotationRecordName is the file in a rotated folder that says how it was rotated.
const RotationRecordName = "crepe-rotation.json"

// written returns an error unless dir has the manifest of a run, or the record of a
// packing or a rotation.
func written(dir string) error {
	err := writtenByRun(dir)
	if err != nil && (packedBy(dir) || recorded(dir, RotationRecordName, "provenance")) {
		return nil
	}
	return err
}

// packedBy reports whether dir has the record of a packing.
func packedBy(dir string) bool { return recorded(dir, PackRecordName, "format") }

// recorded reports whether dir has a record of that name, by crepe and with a text
// called key.
func recorded(dir, name, key string) bool {
	path := filepath.Join(dir, name)
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return false
	}
	var r map[string]json.RawMessage
	text, err := regular.Read(path, MaxManifest)
	if err != nil || json.Unmarshal(text, &r) != nil {
		return false
	}
	for _, k := range []string{"crepe", key} {
		var v string
		if json.Unmarshal(r[k], &v) != nil || v == "" {
			return false
		}
	}
	return true
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

// Replaced returns what an output with Options.Overwrite deletes: the names in the
// folder dir, and the folder beside it if a run has left something of its own in it.
func Replaced(dir string) (output []string, partial string, err error) {
	target, err := resolve(dir)
	if err != nil {
		return nil, "", err
	}
	entries, err := os.ReadDir(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	for _, name := range [...]string{journalName, outName, scratchName, replacedName} {
		if _, err := os.Lstat(filepath.Join(partialPath(target), name)); err == nil {
			partial = partialPath(target)
		}
	}
	return names(entries), partial, nil
}

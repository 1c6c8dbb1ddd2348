package pack

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/tensor"
)

// Record is the content of crepe-pack.json in a packed folder: what Unpack needs to
// write the plain folder again, and to know that it is the same.
type Record struct {
	Crepe  string `json:"crepe"`  // version
	Format string `json:"format"` // checkpoint.FormatOf

	// Plain are the SHA-256 of the plain folder's config, and of those of its weight
	// files that crepe writes in the same way; none if weights became integers.
	Plain map[string]string `json:"plain"`
	Files map[string]string `json:"files"` // SHA-256 of the packed folder's config and weight files

	Order []File `json:"order"` // of the plain folder's tensors
}

// File is a weight file and its tensors in their order.
type File struct {
	Name    string   `json:"name"`
	Tensors []string `json:"tensors"`
}

// ReadRecord returns the record of a packed folder; without one it is fs.ErrNotExist.
func ReadRecord(dir string) (*Record, error) {
	path := filepath.Join(dir, checkpoint.PackRecordName)
	text, err := regular.Read(path, checkpoint.MaxManifest)
	if err != nil {
		return nil, err
	}
	var r Record
	if err := pyjson.Record(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !slices.Contains(formats, r.Format) {
		return nil, fmt.Errorf("%s: format %.100q, want %s", path, r.Format, strings.Join(formats, ", "))
	}
	return &r, nil
}

var formats = []string{
	checkpoint.PackedFormat, checkpoint.FormatOf(tensor.Integers{Bits: 8}), checkpoint.FormatOf(tensor.Integers{Bits: 4}),
}

// Rounded reports whether weights became integers, so that they do not come back.
func (r *Record) Rounded() bool { return r.Format != checkpoint.PackedFormat && r.Format != "" }

// layouts returns the plain folder's files as r lists them, of which inv has the
// tensors.
func (r *Record) layouts(inv *checkpoint.Inventory) ([]checkpoint.Layout, error) {
	files, n := make([]checkpoint.Layout, len(r.Order)), 0
	seen := map[string]bool{}
	for i, f := range r.Order {
		files[i].Name = f.Name
		for _, name := range f.Tensors {
			t, ok := inv.Tensor(name)
			if !ok || seen[name] {
				return nil, fmt.Errorf("%s: %s lists tensor %.200q, want each tensor of the folder once", inv.Dir(), checkpoint.PackRecordName, name)
			}
			seen[name] = true
			files[i].Tensors = append(files[i].Tensors, t)
			n++
		}
	}
	if have := len(inv.Tensors()); n != have {
		return nil, fmt.Errorf("%s: %s lists %d tensors, the folder has %d", inv.Dir(), checkpoint.PackRecordName, n, have)
	}
	return files, nil
}

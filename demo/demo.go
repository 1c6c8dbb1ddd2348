// Package demo carries a small trained Llama with text to calibrate on and to
// measure by, so that crepe shows its whole pipeline with nothing fetched.
//
// The model is weak (5.4 M parameters) and small models have little to prune:
// it is for seeing the pipeline work and for exact comparisons, not for claims
// about large models. data/README.md says where model and texts come from and
// under which licences they are.
package demo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/crepe-llm/crepe/internal/regular"
)

// files has the notice on sources and licences with the model, so that a binary
// carries it too.
//
//go:embed data/model data/README.md
var files embed.FS

//go:embed data/calibration.jsonl
var calibration []byte

//go:embed data/wikitext-2-test.txt
var evaluation []byte

// Calibration returns the calibration documents as JSON lines with the field
// text. The bytes are shared: they must not be changed.
func Calibration() []byte { return calibration }

// Evaluation returns the evaluation text, the test split of WikiText-2 raw
// without its blank rows. The bytes are shared: they must not be changed.
func Evaluation() []byte { return evaluation }

// ModelDir returns the demo model as a Hugging Face folder on disk. The folder
// is made once, in the user's cache directory under the hash of its content,
// and compared byte by byte when it is there already; one that differs is made
// anew. Where no cache directory can be written, it lies in the directory for
// temporary files.
func ModelDir() (string, error) {
	parents := []string{filepath.Join(os.TempDir(), "crepe")}
	if cache, err := os.UserCacheDir(); err == nil {
		parents = []string{filepath.Join(cache, "crepe"), parents[0]}
	}
	model, err := fs.Sub(files, "data/model")
	if err != nil {
		return "", err
	}
	for _, parent := range parents {
		var dir string
		if dir, err = place(model, filepath.Join(parent, "demo-"+contentHash())); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("demo model: no place to write it: %w", err)
}

// contentHash is 16 hex digits of the SHA-256 over names and contents of the
// model's files.
var contentHash = sync.OnceValue(func() string {
	h := sha256.New()
	entries, err := files.ReadDir("data/model")
	if err != nil {
		panic(err) // embedded: cannot be absent
	}
	for _, e := range entries {
		data, err := files.ReadFile("data/model/" + e.Name())
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(h, "%s %d\n", e.Name(), len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
})

// place makes dir hold the files of src and nothing else. It writes a sibling
// and renames it, so that dir is never there by half, whoever else is at it.
func place(src fs.FS, dir string) (string, error) {
	if holds(dir, src) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".demo-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	fresh, old := filepath.Join(tmp, "new"), filepath.Join(tmp, "old")
	if err := os.CopyFS(fresh, src); err != nil {
		return "", err
	}
	if err := os.Rename(dir, old); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil && !holds(dir, src) { // another process may have been first
		return "", err
	}
	return dir, nil
}

// holds reports whether dir has exactly the files of src, byte for byte.
func holds(dir string, src fs.FS) bool {
	want, err := fs.ReadDir(src, ".")
	if err != nil {
		return false
	}
	got, err := os.ReadDir(dir)
	if err != nil || len(got) != len(want) {
		return false
	}
	for i, e := range want { // both in the order of names
		data, err := fs.ReadFile(src, e.Name())
		if err != nil || got[i].Name() != e.Name() {
			return false
		}
		if onDisk, err := regular.Read(filepath.Join(dir, e.Name()), int64(len(data))); err != nil || !bytes.Equal(onDisk, data) {
			return false
		}
	}
	return true
}

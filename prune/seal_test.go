package prune

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// What is not as it was saved is not restored, wherever it is damaged.
func TestUnseal(t *testing.T) {
	want := []byte("hidden states")
	var text bytes.Buffer
	if err := seal(&text, func(w io.Writer) error { _, err := w.Write(want); return err }); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "copy")
	read := func(content []byte) (got []byte, err error) {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		err = unseal(f, func(r io.Reader) (err error) { got, err = io.ReadAll(r); return err })
		return got, err
	}
	if got, err := read(text.Bytes()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for i := range text.Len() {
		flipped := bytes.Clone(text.Bytes())
		flipped[i] ^= 1
		for what, content := range map[string][]byte{"flipped": flipped, "cut": text.Bytes()[:i]} {
			if got, err := read(content); !errors.Is(err, errDamaged) || got != nil {
				t.Errorf("%s at byte %d: %q, %v", what, i, got, err)
			}
		}
	}
}

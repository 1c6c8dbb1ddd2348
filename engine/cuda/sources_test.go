package cuda_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// sourcesHash is the digest of tools/cuda/ptx.py.
func sourcesHash(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("kernels/*.cu*")
	if err != nil || len(names) == 0 {
		t.Fatal("no sources", err)
	}
	slices.Sort(names)
	h := sha256.New()
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(name), len(text))
		h.Write(text)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

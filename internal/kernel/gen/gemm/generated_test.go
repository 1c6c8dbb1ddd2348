package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCommittedIsGenerated generates again and compares with what is committed,
// but for the first line, which holds the command.
func TestCommittedIsGenerated(t *testing.T) {
	folder := t.TempDir()
	const asm, stubs = "gemm_amd64.s", "gemm_stubs_amd64.go"
	out, err := exec.Command("go", "run", ".", "-pkg", "kernel",
		"-out", filepath.Join(folder, asm), "-stubs", filepath.Join(folder, stubs)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	body := func(file string) []byte {
		all, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := bytes.Cut(all, []byte("\n"))
		return rest
	}
	for _, name := range []string{asm, stubs} {
		if !bytes.Equal(body(filepath.Join(folder, name)), body(filepath.Join("../..", name))) {
			t.Errorf("%s is not what the generator writes: run go generate in internal/kernel", name)
		}
	}
}

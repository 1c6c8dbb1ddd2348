package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestEVEXDisassembles lets objdump name every combination of registers.
func TestEVEXDisassembles(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("no objdump")
	}
	var code bytes.Buffer
	var want []string
	for dst := range byte(32) {
		for src := range byte(32) {
			c := evexNarrow(dst, src)
			code.Write(c[:])
			want = append(want, fmt.Sprintf("vcvtneps2bf16 ymm%d,zmm%d", dst, src))
		}
	}
	file := filepath.Join(t.TempDir(), "code.bin")
	if err := os.WriteFile(file, code.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`vcvtneps2bf16 ymm\d+,zmm\d+`).FindAllString(string(out), -1)
	if len(got) != len(want) {
		t.Fatalf("%d instructions disassembled, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("instruction %d: %s, want %s", i, got[i], want[i])
		}
	}
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// builds are what TestBuilds calls two programs that differ in a byte, and compute the
// same.
var builds = []string{"crepe-a", "crepe-b"}

// TestBuilds runs testdata/builds with both, at the highest instruction level and at
// generic: what one has made, none of the others takes for its own.
func TestBuilds(t *testing.T) {
	if runtime.GOOS == "darwin" {
		t.Skip("a program with a byte more is not run here: its signature does not hold")
	}
	if len(cpu.Levels()) < 2 || os.Getenv("CREPE_CPU") != "" {
		t.Skip("one instruction level only")
	}
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range builds {
		if runtime.GOOS == "windows" {
			name += ".exe"
		}
		if err := os.WriteFile(filepath.Join(bin, name), program, 0o777); err != nil {
			t.Fatal(err)
		}
		program = append(program, 0) // which nothing reads
	}
	p := scriptParams(t, "testdata/builds")
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("PATH", fmt.Sprint(bin, string(os.PathListSeparator), os.Getenv("PATH")))
		return setup(e)
	}
	testscript.Run(t, p)
}

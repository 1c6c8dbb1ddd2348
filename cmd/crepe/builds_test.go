package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// TestBuilds runs testdata/builds with two builds of one source, crepe-a and
// crepe-b, at the highest instruction level and at generic: what one has made,
// none of the others takes for its own.
func TestBuilds(t *testing.T) {
	if testing.Short() {
		t.Skip("builds crepe twice")
	}
	if len(cpu.Levels()) < 2 || os.Getenv("CREPE_CPU") != "" {
		t.Skip("one instruction level only")
	}
	bin := t.TempDir()
	for _, name := range []string{"crepe-a", "crepe-b"} {
		// The build ID is part of the file, and of nothing that is computed.
		if runtime.GOOS == "windows" {
			name += ".exe"
		}
		c := exec.Command("go", "build", "-ldflags=-buildid="+name, "-o", filepath.Join(bin, name), ".")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	p := scriptParams("testdata/builds")
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("PATH", fmt.Sprint(bin, string(os.PathListSeparator), os.Getenv("PATH")))
		return setup(e)
	}
	testscript.Run(t, p)
}

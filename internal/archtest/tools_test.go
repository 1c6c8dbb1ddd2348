package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var script = regexp.MustCompile(`tools/([\w/]+\.py)`)

// Every script that code or documentation names exists, has one of the prefixes
// that tools/README.md explains, and a line there.
func TestToolsAreNamedAndListed(t *testing.T) {
	paths, err := filepath.Glob("../../tools/*.py")
	if err != nil || len(paths) == 0 {
		t.Fatalf("scripts %v, error %v", paths, err)
	}
	readme, err := os.ReadFile("../../tools/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var scripts []string
	for _, path := range paths {
		name := filepath.Base(path)
		scripts = append(scripts, name)
		prefix, _, _ := strings.Cut(name, "_")
		if !slices.Contains([]string{"golden", "oracle", "peer", "bench"}, prefix) {
			t.Errorf("tools/%s: want a name that begins with golden_, oracle_, peer_ or bench_", name)
		}
		if !strings.Contains(string(readme), "| `"+name+"` |") {
			t.Errorf("tools/%s: no line in tools/README.md", name)
		}
	}
	for _, folder := range []string{"real", "cuda", "cuda/emulator", "cuda/emulator/selftest"} {
		inside, err := filepath.Glob("../../tools/" + folder + "/*.py")
		if err != nil || len(inside) == 0 {
			t.Fatalf("scripts %v in tools/%s, error %v", inside, folder, err)
		}
		for _, path := range inside {
			scripts = append(scripts, folder+"/"+filepath.Base(path))
		}
	}
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".go", ".md", ".py"}, filepath.Ext(path)) {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range script.FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(scripts, m[1]) {
				t.Errorf("%s: names %s, which does not exist", path, m[0])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

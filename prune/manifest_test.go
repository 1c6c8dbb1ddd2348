package prune

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// FuzzManifest reads any text as crepe.json: what is taken can be written, and reads
// back the same.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"crepe": "0.1", "kernels": "avx2", "recipe": {"version": 1, "method": "wanda", "sparsity": "50%", "alpha": 1},
		"inputs": {"config.json": "ab"}, "sparsity": {"asked": 0.5, "measured": 0.5}, "dense": {"perplexity": null, "nll": 6524.26, "windows": 2, "seqlen": 24},
		"linears": [{"name": "q", "rows": 2, "cols": 4, "sparsity": 0.5, "zeros": 4, "permuted": [{"end_row": 2, "order": "AQAAAAMAAgA="}], "refined": {"exchanges": 3}}],
		"allocation": {"method": "owl", "blocks": [{"measure": 1, "sparsity": 0.5}]}}`))
	f.Add([]byte(`{"recipe": null, "linears": [{}, {}, {"permuted": [{}, null, {"order": "AAA"}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m *Manifest
		var err error
		golden.Ceiling(t, uint64(256<<10+200*len(text)), func() { m, err = parseManifest(text) })
		if err != nil {
			return
		}
		once, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q: read, but not written: %v", text, err)
		}
		if m, err = parseManifest(once); err != nil {
			t.Fatalf("%q: written as %q: %v", text, once, err)
		}
		if twice, err := json.Marshal(m); err != nil || string(twice) != string(once) {
			t.Fatalf("%q: written as %q, then as %q (%v)", text, once, twice, err)
		}
	})
}

func TestManifestOfAnotherKind(t *testing.T) {
	for text, want := range map[string]string{"[]": "array, want an object", " null\n": "null, want an object", "3": "number, want an object", `{"linears": {}}`: "linears: object, want an array"} {
		if _, err := parseManifest([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// A few megabytes of braces do not take a few hundred.
func TestManifestOfBraces(t *testing.T) {
	dir := t.TempDir()
	text := `{"linears":[` + strings.Repeat(`{},`, maxObjects) + `{}]}`
	if err := os.WriteFile(filepath.Join(dir, ManifestName), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	golden.Ceiling(t, uint64(8*len(text)), func() {
		if _, err := ReadManifest(dir); err == nil || !strings.Contains(err.Error(), "1048578 objects, want at most 1048576") {
			t.Errorf("error %v", err)
		}
	})
}

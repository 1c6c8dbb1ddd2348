package checkpoint

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/tensor"
)

// manifest is what a run leaves in its output, as far as overwriting goes.
const manifest = `{"crepe": "0.1.0", "recipe": {"method": "wanda"}}`

// spec is a tensor to be made.
type spec struct {
	name  string
	dtype tensor.DType
	shape []int
}

// blocks is a model of two blocks, an embedding that they outweigh, and an
// element type in which nothing is computed.
var blocks = []spec{
	{"embed", tensor.BF16, []int{16, 8}},
	{"0.q", tensor.BF16, []int{8, 8}},
	{"0.norm", tensor.F32, []int{8}},
	{"1.q", tensor.BF16, []int{8, 8}},
	{"1.norm", tensor.F32, []int{8}},
	{"steps", tensor.I64, []int{}},
}

// safetensorsFile returns a file with tensors of random bytes.
func safetensorsFile(t testing.TB, seed uint64, specs []spec) []byte {
	t.Helper()
	h := header{metadata: []pair{{"format", "pt"}}}
	for _, s := range specs {
		n, err := byteSize(s.dtype, s.shape)
		if err != nil {
			t.Fatal(err)
		}
		h.tensors = append(h.tensors, Tensor{Name: s.name, DType: s.dtype, Shape: s.shape, Size: n})
	}
	file := h.encode()
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, x := range h.tensors {
		for range x.Size {
			file = append(file, byte(rng.Uint32()))
		}
	}
	return file
}

// folder writes files below a new folder and returns it. A config.json is
// there unless files has one.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	write(t, dir, map[string]string{"config.json": "{}\n"})
	write(t, dir, files)
	return dir
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// sharded returns the files of a checkpoint with blocks in two shards.
func sharded(t testing.TB) map[string]string {
	t.Helper()
	files := map[string]string{
		"a.safetensors":  string(safetensorsFile(t, 1, blocks[:3])),
		"b.safetensors":  string(safetensorsFile(t, 2, blocks[3:])),
		"tokenizer.json": `{"model": {}}`,
		"sub/notes.txt":  "kept",
	}
	var text strings.Builder
	text.WriteString(`{"metadata": {"total_size": 1, "made_by": ["x", 2]}, "weight_map": {`)
	for i, s := range blocks {
		if i > 0 {
			text.WriteString(", ")
		}
		file := "a.safetensors"
		if i >= 3 {
			file = "b.safetensors"
		}
		fmt.Fprintf(&text, "%q: %q", s.name, file)
	}
	text.WriteString("}}")
	files[indexName] = text.String()
	return files
}

func open(t testing.TB, dir string) *Inventory {
	t.Helper()
	inv, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	return inv
}

func plan(t testing.TB, inv *Inventory, maxShard int64) *Plan {
	t.Helper()
	p, err := NewPlan(inv, maxShard)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t testing.TB, inv *Inventory, name string) []byte {
	t.Helper()
	x, ok := inv.Tensor(name)
	if !ok {
		t.Fatalf("%s: no tensor %q", inv.Dir(), name)
	}
	data := make([]byte, x.Size)
	if err := inv.Read(x, data); err != nil {
		t.Fatal(err)
	}
	return data
}

// tree returns the files below dir by path. It fails on none.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(rel)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("%s: no files", dir)
	}
	return files
}

func sameTree(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		} else if got[name] != want[name] {
			t.Errorf("%s differs", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is there, and should not be", name)
		}
	}
}

// wantError checks that err says all of parts, in one line unless it shows
// two things side by side.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q, want %q in it", err, p)
		}
	}
}

func wantAbsent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s exists, and should not", path)
	}
}

// sameTensors checks that two checkpoints hold the same.
func sameTensors(t *testing.T, got, want *Inventory) {
	t.Helper()
	if len(got.Tensors()) != len(want.Tensors()) {
		t.Errorf("%d tensors, want %d", len(got.Tensors()), len(want.Tensors()))
	}
	for _, x := range want.Tensors() {
		y, ok := got.Tensor(x.Name)
		switch {
		case !ok:
			t.Errorf("tensor %s is missing", x.Name)
		case y.DType != x.DType || fmt.Sprint(y.Shape) != fmt.Sprint(x.Shape):
			t.Errorf("tensor %s: %v %v, want %v %v", x.Name, y.DType, y.Shape, x.DType, x.Shape)
		case !bytes.Equal(read(t, got, x.Name), read(t, want, x.Name)):
			t.Errorf("tensor %s: other bytes", x.Name)
		}
	}
}

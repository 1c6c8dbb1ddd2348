package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/tensor"
)

var options = Options{Provenance: provenance.Record{{Name: "program", Value: "one"}, {Name: "method", Value: "crepe"}, {Name: "sparsity", Value: "50%"}}}

// steps is what the tests' driver does, in its order, which is not that of the
// files.
var steps = [][]string{{"1.q", "1.norm"}, {"0.norm", "0.q"}, {"steps", "embed"}}

// pruned returns what the tests' driver makes of a tensor.
func pruned(name string, data []byte) []byte {
	if !strings.HasSuffix(name, ".q") {
		return data
	}
	data = bytes.Clone(data)
	clear(data[:len(data)/2])
	return data
}

// drive does the steps that are not done yet and commits. between is called
// before each of its calls of w, and may stop it.
func drive(t *testing.T, w *Writer, inv *Inventory, between func() (stop bool)) error {
	t.Helper()
	for i, names := range steps {
		step := fmt.Sprint("step ", i)
		if w.Done(step) {
			var info int
			if err := w.Info(step, &info); err != nil || info != 10*i {
				t.Errorf("%s: info %d, %v, want %d", step, info, err, 10*i)
			}
			continue
		}
		for _, name := range names {
			if between() {
				return nil
			}
			err := error(nil)
			if data := read(t, inv, name); bytes.Equal(pruned(name, data), data) {
				err = w.CopyTensor(name)
			} else {
				err = w.WriteTensor(name, pruned(name, data))
			}
			if err != nil {
				return err
			}
		}
		if between() {
			return nil
		}
		if err := w.Mark(step, 10*i); err != nil {
			return err
		}
	}
	if between() {
		return nil
	}
	return w.Commit(map[string][]byte{"crepe.json": []byte(manifest)})
}

func never() bool { return false }

// setup returns an input, the plan of an output in three shards, and the path
// of the output, which lies in a folder by itself.
func setup(t *testing.T) (inv *Inventory, p *Plan, target string) {
	t.Helper()
	inv = open(t, folder(t, sharded(t)))
	return inv, plan(t, inv, 300), filepath.Join(t.TempDir(), "parent", "pruned")
}

// finished returns the files of a run that nothing has disturbed.
func finished(t *testing.T, inv *Inventory, p *Plan) map[string]string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "pruned")
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := drive(t, w, inv, never); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, partialPath(target))
	return tree(t, target)
}

func TestWriter(t *testing.T) {
	inv, p, target := setup(t)
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.ScratchPath("hidden"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, target)
	if err := drive(t, w, inv, never); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, partialPath(target))
	out := open(t, target)
	for _, x := range inv.Tensors() {
		if got, want := read(t, out, x.Name), pruned(x.Name, read(t, inv, x.Name)); !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", x.Name, got, want)
		}
	}
	files := tree(t, target)
	for name, want := range map[string]string{"sub/notes.txt": "kept", "config.json": "{}\n", "tokenizer.json": `{"model": {}}`, "crepe.json": manifest} {
		if files[name] != want {
			t.Errorf("%s: %q, want %q", name, files[name], want)
		}
	}
	if len(files) != 4+3+1 {
		t.Errorf("%d files, want 4, 3 shards and their index", len(files))
	}
	var total int64
	for name, text := range files {
		if name != "crepe.json" {
			total += int64(len(text))
		}
	}
	if total != p.Bytes() {
		t.Errorf("the plan is of %d bytes, its files are of %d", p.Bytes(), total)
	}
}

// TestRoundTrip copies fixtures: what came in one file comes out byte for
// byte, what came in several holds the same.
func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		dir      string
		maxShard int64
	}{{"testdata/golden", 0}, {"../testdata/fixtures/llama-mha", 0}, {"../testdata/fixtures/llama3-gqa", 0}, {"../testdata/fixtures/llama3-gqa", 50_000}} {
		t.Run(fmt.Sprint(filepath.Base(c.dir), c.maxShard), func(t *testing.T) {
			inv := open(t, c.dir)
			target := filepath.Join(t.TempDir(), "copy")
			w, err := Create(target, plan(t, inv, c.maxShard), inv, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range w.Missing() {
				if err := w.CopyTensor(name); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Commit(nil); err != nil {
				t.Fatal(err)
			}
			if len(inv.files) == 1 {
				sameTree(t, tree(t, target), tree(t, c.dir))
			}
			sameTensors(t, open(t, target), inv)
		})
	}
}

// TestCopyTensorStreams copies a tensor of several buffers, the last not full.
func TestCopyTensorStreams(t *testing.T) {
	file := string(safetensorsFile(t, 1, []spec{{"a", tensor.U8, []int{7}}, {"big", tensor.U8, []int{2*copyBuffer + 5}}}))
	inv := open(t, folder(t, map[string]string{singleName: file}))
	target := filepath.Join(t.TempDir(), "copy")
	w, err := Create(target, plan(t, inv, 0), inv, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"big", "a"} {
		if err := w.CopyTensor(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(nil); err != nil {
		t.Fatal(err)
	}
	if tree(t, target)[singleName] != file {
		t.Errorf("%s differs from the input's", singleName)
	}
}

func TestWriterConcurrent(t *testing.T) {
	inv, p, target := setup(t)
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, s := range blocks {
		wg.Go(func() {
			if err := w.CopyTensor(s.name); err != nil {
				t.Error(err)
			}
			if err := w.Mark(fmt.Sprint(i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := w.Commit(nil); err != nil {
		t.Fatal(err)
	}
	sameTensors(t, open(t, target), inv)
}

func TestCommitIncomplete(t *testing.T) {
	inv, p, target := setup(t)
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.CopyTensor("embed"); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.Commit(nil), "5 tensors not written", "0.q", target)
	wantError(t, w.CopyTensor("absent"), "absent", "plan")
	wantError(t, w.WriteTensor("absent", nil), "absent", "plan")
	wantAbsent(t, target)
}

func TestAbort(t *testing.T) {
	inv, p, target := setup(t)
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, partialPath(target))
	wantAbsent(t, target)
	if _, err := Resume(target, p, inv, options); !errors.Is(err, ErrNoPartial) {
		t.Errorf("Resume: %v, want ErrNoPartial", err)
	}
}

// TestTargetRefused: everything that is noticed before work begins. Nothing
// may be touched.
func TestTargetRefused(t *testing.T) {
	inv, p, _ := setup(t)
	parent := t.TempDir()
	at := func(name string) string { return filepath.Join(parent, name) }
	write(t, parent, map[string]string{"full/notes.txt": "x", "file": "x", "model/config.json": "{}", "model/model.safetensors": "x",
		"other/crepe.json": `{"recipe": {}}`, "folder/crepe.json/x": "{}"})
	before := tree(t, parent)
	links := true
	for link, to := range map[string]string{"input": inv.Dir(), "dangling": at("nowhere"), "toparent": filepath.Dir(inv.Dir())} {
		links = links && os.Symlink(to, at(link)) == nil
	}
	for _, c := range []struct {
		name, target string
		link         bool
		overwrite    bool
		want         []string
	}{
		{"not empty", at("full"), false, false, []string{"not empty", "notes.txt", "--overwrite"}},
		{"a model", at("model"), false, false, []string{"not empty", "--overwrite"}},
		{"nobody's model", at("full"), false, true, []string{"not written by crepe (no crepe.json in it)", "would delete notes.txt"}},
		{"somebody's model", at("model"), false, true, []string{"not written by crepe (no crepe.json in it)", "would delete config.json, model.safetensors"}},
		{"another crepe.json", at("other"), false, true, []string{"its crepe.json is not that of a run", "would delete crepe.json"}},
		{"a folder crepe.json", at("folder"), false, true, []string{"no crepe.json in it"}},
		{"a file", at("file"), false, true, []string{"a file has that name"}},
		{"below a file", at("file/x"), false, false, []string{"file"}},
		{"the input", inv.Dir(), false, true, []string{"same as the input"}},
		{"the input, otherwise", filepath.Join(inv.Dir(), "sub", ".."), false, true, []string{"same as the input"}},
		{"the input, linked", at("input"), true, true, []string{"same as the input"}},
		{"in the input", filepath.Join(inv.Dir(), "pruned"), false, false, []string{"inside the input"}},
		{"in the input, linked", at("input/pruned"), true, false, []string{"inside the input"}},
		{"around the input", filepath.Dir(inv.Dir()), false, true, []string{"input", "inside it"}},
		{"around the input, linked", at("toparent"), true, true, []string{"input", "inside it"}},
		{"a dangling link", at("dangling"), true, false, []string{"link to what does not exist"}},
		{"the root", string(filepath.Separator), false, true, []string{"root"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.link && !links {
				t.Skip("no symbolic links here")
			}
			o := Options{Overwrite: c.overwrite}
			w, err := Create(c.target, p, inv, o)
			if err == nil {
				w.Abort()
			}
			wantError(t, err, c.want...)
			wantError(t, CheckTarget(c.target, inv, c.overwrite), c.want...)
		})
	}
	if links {
		for _, link := range []string{"input", "dangling", "toparent"} {
			os.Remove(at(link))
		}
	}
	sameTree(t, tree(t, parent), before)
}

// TestTargetHoldsBlobs: the input's files are links into the folder that would
// be replaced.
func TestTargetHoldsBlobs(t *testing.T) {
	dir := cacheOf(t, map[string]string{"config.json": "{}", singleName: string(safetensorsFile(t, 1, blocks))})
	inv := open(t, dir)
	target := filepath.Join(dir, "..", "..", "blobs")
	write(t, target, map[string]string{"config.json": "{}"})
	_, err := Create(target, plan(t, inv, 0), inv, Options{Overwrite: true})
	wantError(t, err, "blob", "inside it")
}

func TestTargetAllowed(t *testing.T) {
	inv, p, target := setup(t)
	want := finished(t, inv, p)
	for name, prepare := range map[string]func(target string) (resolved string, o Options){
		"empty folder": func(target string) (string, Options) {
			os.MkdirAll(target, 0o777)
			return target, options
		},
		"link to an empty folder": func(target string) (string, Options) {
			real := filepath.Join(t.TempDir(), "real")
			os.MkdirAll(real, 0o777)
			os.MkdirAll(filepath.Dir(target), 0o777)
			if err := os.Symlink(real, target); err != nil {
				t.Skip(err)
			}
			return real, options
		},
		"overwritten": func(target string) (string, Options) {
			write(t, target, map[string]string{"config.json": "old", "old/file": "x", "crepe.json": manifest})
			o := options
			o.Overwrite = true
			return target, o
		},
	} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(filepath.Dir(target), strings.ReplaceAll(name, " ", "-"), "out")
			resolved, o := prepare(target)
			w, err := Create(target, p, inv, o)
			if err != nil {
				t.Fatal(err)
			}
			if name == "overwritten" && tree(t, target)["config.json"] != "old" {
				t.Error("the old folder is gone before the new one is complete")
			}
			if err := drive(t, w, inv, never); err != nil {
				t.Fatal(err)
			}
			sameTree(t, tree(t, resolved), want)
			wantAbsent(t, partialPath(resolved))
		})
	}
}

// TestTargetFilledMeanwhile: somebody writes to the target while we work.
func TestTargetFilledMeanwhile(t *testing.T) {
	inv, p, target := setup(t)
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	write(t, target, map[string]string{"theirs.txt": "x"})
	wantError(t, drive(t, w, inv, never), "not empty", "theirs.txt", "--resume", w.Folder())
	w.Close()
	if err := os.RemoveAll(target); err != nil {
		t.Fatal(err)
	}
	if _, err := Resume(target, p, inv, options); !errors.Is(err, ErrFinished) {
		t.Fatalf("Resume: %v, want ErrFinished", err)
	}
	sameTree(t, tree(t, target), finished(t, inv, p))
}

package checkpoint

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

// victim is a folder that nothing may change.
func victim(t *testing.T) (dir string, unchanged func()) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "victim")
	write(t, dir, map[string]string{"out/keep": "x", "scratch/keep": "x", "replaced/keep": "x", "file": "secret"})
	before := tree(t, dir)
	return dir, func() {
		t.Helper()
		sameTree(t, tree(t, dir), before)
	}
}

// TestPartialIsALink: somebody who knows the name of the partial folder has put a
// link there.
func TestPartialIsALink(t *testing.T) {
	inv, p, target := setup(t)
	dir, unchanged := victim(t)
	link(t, dir, partialPath(target))
	for _, o := range []Options{options, {Provenance: options.Provenance, Overwrite: true}} {
		_, err := Create(target, p, inv, o)
		wantError(t, err, partialPath(target), "a link or a file, want a folder that crepe made")
		_, err = Resume(target, p, inv, o)
		wantError(t, err, partialPath(target), "a link or a file")
	}
	unchanged()
	wantAbsent(t, target)
}

// TestLinksInPartial: each name in the partial folder is a link out of it, before
// a run begins and before it goes on.
func TestLinksInPartial(t *testing.T) {
	inv, p, target := setup(t)
	want := finished(t, inv, p)
	shard := filepath.Join(outName, p.Shards[0].Name)
	for _, c := range []struct {
		name, to       string
		begins, goesOn bool // or it is refused
	}{
		{lockName, "file", false, false},
		{journalName, "file", false, false},
		{journalName, "nothing", false, false},
		{outName, "out", true, false},
		{scratchName, "scratch", true, false},
		{replacedName, "replaced", true, true},
		{shard, "file", true, false},
		{filepath.Join(outName, "crepe.json"), "file", true, true},
	} {
		t.Run(c.name+" to "+c.to, func(t *testing.T) {
			dir, unchanged := victim(t)
			partial := partialPath(target)
			if err := os.MkdirAll(target, 0o777); err != nil { // empty
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(partial, filepath.Dir(c.name)), 0o777); err != nil {
				t.Fatal(err)
			}
			link(t, filepath.Join(dir, c.to), filepath.Join(partial, c.name))
			w, err := Create(target, p, inv, options)
			if (err == nil) != c.begins {
				t.Errorf("Create: %v", err)
			}
			unchanged()
			wantAbsent(t, filepath.Join(dir, "nothing"))
			if w != nil {
				w.Close()
			}
			if err := os.RemoveAll(partial); err != nil {
				t.Fatal(err)
			}

			if w, err = Create(target, p, inv, options); err != nil {
				t.Fatal(err)
			}
			if err := w.Mark("x", nil); err != nil {
				t.Fatal(err)
			}
			w.Close()
			os.RemoveAll(filepath.Join(partial, c.name))
			link(t, filepath.Join(dir, c.to), filepath.Join(partial, c.name))
			w, err = Resume(target, p, inv, options)
			if (err == nil) != c.goesOn {
				t.Errorf("Resume: %v", err)
			}
			if err == nil {
				if err := drive(t, w, inv, never); err != nil {
					t.Error(err)
				}
				sameTree(t, tree(t, target), want)
			}
			os.RemoveAll(target)
			unchanged()
			wantAbsent(t, filepath.Join(dir, "nothing"))
			os.RemoveAll(partial)
		})
	}
}

// TestAuxLinks: a link that leads out of the model's folder is not carried over,
// and listed; one that stays in it is.
func TestAuxLinks(t *testing.T) {
	dir := folder(t, sharded(t))
	secret := filepath.Join(t.TempDir(), "id_rsa")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	link(t, secret, filepath.Join(dir, "README.md"))
	link(t, filepath.Join("sub", "notes.txt"), filepath.Join(dir, "NOTES"))
	link(t, filepath.Join("..", "..", "..", filepath.Base(filepath.Dir(secret)), "id_rsa"), filepath.Join(dir, "sub", "key"))
	inv := open(t, dir)
	for _, want := range []LeftOut{{"README.md", reasonLeads}, {"sub/key", reasonLeads}} {
		if !slices.Contains(inv.LeftOut(), want) {
			t.Errorf("left out %v, want %v too", inv.LeftOut(), want)
		}
	}
	files := finished(t, inv, plan(t, inv, 0))
	if files["NOTES"] != "kept" || files["README.md"] != "" || files["sub/key"] != "" {
		t.Errorf("carried over: %q, README.md %q, sub/key %q", files["NOTES"], files["README.md"], files["sub/key"])
	}
	// A cache whose blobs are a link elsewhere is no cache.
	cache := cacheOf(t, map[string]string{"config.json": "{}", singleName: string(safetensorsFile(t, 1, blocks)), "tokenizer.json": "{}"})
	blobs := filepath.Join(cache, "..", "..", "blobs")
	moved := filepath.Join(t.TempDir(), "blobs")
	if err := os.CopyFS(moved, os.DirFS(blobs)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(blobs); err != nil {
		t.Fatal(err)
	}
	link(t, moved, blobs)
	if left := open(t, cache).LeftOut(); !slices.Contains(left, LeftOut{"tokenizer.json", reasonLeads}) {
		t.Errorf("left out %v, want tokenizer.json", left)
	}
}

// TestManifestOfTheInput: the manifest of an earlier run, or a folder of that name,
// is not carried over.
func TestManifestOfTheInput(t *testing.T) {
	for name, file := range map[string]string{"crepe.json": "crepe.json", "crepe.json/": "crepe.json/x"} {
		files := sharded(t)
		files[file] = "{}"
		inv := open(t, folder(t, files))
		if want := (LeftOut{name, reasonManifest}); !slices.Contains(inv.LeftOut(), want) {
			t.Errorf("left out %v, want %v", inv.LeftOut(), want)
		}
		finished(t, inv, plan(t, inv, 0))
	}
}

// TestModes: what only some may read of the input, no others may of the output.
func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes here")
	}
	dir := folder(t, sharded(t))
	for name, mode := range map[string]os.FileMode{
		"tokenizer.json": 0o600, "b.safetensors": 0o640, "sub/notes.txt": 0o444, "a.safetensors": 0o664, ".": 0o750,
	} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	inv := open(t, dir)
	p := plan(t, inv, 0)
	target := filepath.Join(t.TempDir(), "out")
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := drive(t, w, inv, never); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{
		"tokenizer.json": 0o600, singleName: 0o640, "sub/notes.txt": 0o644, "sub": 0o750, ".": 0o750, "crepe.json": 0o644,
	} {
		st, err := os.Stat(filepath.Join(target, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got&^want != 0 || got&0o600 != 0o600 {
			t.Errorf("%s has mode %v, want at most %v and the owner's", name, got, want)
		}
	}
}

// TestReplaced names what --overwrite deletes.
func TestReplaced(t *testing.T) {
	parent := t.TempDir()
	target := filepath.Join(parent, "out")
	if names, partial, err := Replaced(target); err != nil || names != nil || partial != "" {
		t.Errorf("%q, %q, %v, want nothing", names, partial, err)
	}
	write(t, parent, map[string]string{"out/config.json": "", "out/notes/x": "", ".out.crepe-partial/journal": ""})
	// What a stranger has in a folder of that name stays.
	write(t, parent, map[string]string{".theirs.crepe-partial/notes": ""})
	if _, partial, err := Replaced(filepath.Join(parent, "theirs")); err != nil || partial != "" {
		t.Errorf("%q, %v, want nothing of a stranger's", partial, err)
	}
	names, partial, err := Replaced(target)
	if err != nil || !slices.Equal(names, []string{"config.json", "notes"}) || filepath.Base(partial) != ".out.crepe-partial" {
		t.Errorf("%q, %q, %v", names, partial, err)
	}
}

package fsys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var errFault = errors.New("fault")

func symlink(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Nothing is written through a link: it is replaced, or refused.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("victim"), []byte("theirs"), 0o666); err != nil {
		t.Fatal(err)
	}
	symlink(t, at("victim"), at("link"))
	symlink(t, at("nothing"), at("dangling"))
	symlink(t, dir, at("dirlink"))
	for _, name := range []string{"link", "dangling", "dirlink", "."} {
		if f, err := Reopen(at(name)); f != nil || !errors.Is(err, errNotOurs) {
			t.Errorf("Reopen of %s: %v", name, err)
		}
		if _, err := CreateNew(at(name), 0o666); !errors.Is(err, fs.ErrExist) {
			t.Errorf("CreateNew of %s: %v", name, err)
		}
	}
	if _, err := Reopen(at("nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Reopen of nothing: %v", err)
	}
	if OwnDir(dir) != nil || OwnDir(at("dirlink")) == nil || OwnDir(at("victim")) == nil {
		t.Error("OwnDir: want a folder that is none to pass, alone")
	}
	symlink(t, at("victim"), at("whole.partial"))
	for _, name := range []string{"link", "dangling", "whole"} {
		if err := WriteFile(at(name), []byte("ours")); err != nil {
			t.Error(err)
		}
		if st, err := os.Lstat(at(name)); err != nil || !st.Mode().IsRegular() || content(t, at(name)) != "ours" {
			t.Errorf("%s: not a file of its own", name)
		}
		if _, err := os.Lstat(at(name + ".partial")); err == nil {
			t.Errorf("%s.partial is left", name)
		}
	}
	if content(t, at("victim")) != "theirs" {
		t.Error("written through a link")
	}
	if _, err := os.Lstat(at("nothing")); err == nil {
		t.Error("made through a link")
	}
}

// Each operation asks for its fault, and does what the fault says.
func TestInject(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	var seen []string
	var f *File
	operations := []struct {
		name string
		run  func() error
	}{
		{"mkdir sub", func() error { return Mkdir(filepath.Join(dir, "sub"), 0o777) }},
		{"mkdir deep", func() error { return MkdirAll(filepath.Join(dir, "sub", "deep"), 0o777) }},
		{"mkdir sub", func() error { _, err := MkdirTemp(filepath.Join(dir, "sub"), "x-"); return err }},
		{"create file", func() (err error) { f, err = CreateNew(path, 0o666); return err }},
		{"allocate file", func() error { return f.Allocate(8) }},
		{"write file", func() error { _, err := f.WriteAt([]byte("abcd"), 0); return err }},
		{"truncate file", func() error { return f.Truncate(6) }},
		{"sync file", func() error { return f.Sync() }},
		{"close file", func() error { return f.Close() }},
		{"open file", func() (err error) { f, err = Reopen(path); return err }},
		{"write file", func() error { _, err := f.Write([]byte("xy")); return err }},
		{"write file", func() error { _, err := f.ReadFrom(strings.NewReader("zz")); return err }},
		{"close file", func() error { return f.Close() }},
		{"rename sub", func() error { return Rename(path, filepath.Join(dir, "sub")) }},
		{"sync " + filepath.Base(dir), func() error { return SyncDir(dir) }},
		{"remove file", func() error { return Remove(path) }},
		{"remove sub", func() error { return RemoveAll(filepath.Join(dir, "sub")) }},
	}
	defer Inject(func(op, path string) Fault {
		seen = append(seen, op+" "+filepath.Base(path))
		return Fault{}
	})()
	var want []string
	for _, o := range operations {
		if err := o.run(); err != nil && o.name != "rename sub" { // to a folder
			t.Errorf("%s: %v", o.name, err)
		}
		want = append(want, o.name)
		if o.name == "truncate file" {
			if got := content(t, path); got != "abcd\x00\x00" {
				t.Errorf("the file has %q", got)
			}
		}
	}
	if !slices.Equal(seen, want) {
		t.Errorf("asked for\n%q, want\n%q", seen, want)
	}

	var now Fault
	defer Inject(func(string, string) Fault { return now })()
	f, err := CreateNew(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fault Fault
		n     int
		want  string
	}{
		{Fault{Err: errFault}, 0, ""},
		{Fault{Err: errFault, Half: true}, 2, "ab"},
		{Fault{Err: errFault, Done: true}, 4, "ababcd"},
		{Fault{}, 4, "ababcdabcd"},
	} {
		now = c.fault
		if n, err := f.Write([]byte("abcd")); n != c.n || !errors.Is(err, c.fault.Err) || content(t, path) != c.want {
			t.Errorf("%+v: %d, %v, %q, want %d, %q", c.fault, n, err, content(t, path), c.n, c.want)
		}
	}
	now = Fault{Err: errFault}
	if err := Remove(path); !errors.Is(err, errFault) || content(t, path) == "" {
		t.Errorf("Remove: %v, want the fault and the file", err)
	}
	if g, err := Reopen(path); g != nil || !errors.Is(err, errFault) {
		t.Errorf("Reopen: %v, want the fault", err)
	}
	if err := f.Close(); !errors.Is(err, errFault) || f.File.Close() == nil {
		t.Errorf("Close: %v, want the fault, and it closed", err)
	}
	now = Fault{Err: errFault, Done: true}
	if g, err := CreateNew(path+"2", 0o666); g != nil || !errors.Is(err, errFault) {
		t.Errorf("CreateNew: %v, want the fault", err)
	}
	if _, err := os.Lstat(path + "2"); err != nil {
		t.Errorf("CreateNew that is done, and then fails: %v", err)
	}
	if err := Remove(path); !errors.Is(err, errFault) {
		t.Errorf("Remove: %v, want the fault", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("Remove that is done, and then fails: it is there")
	}
}

// Of a write that fails nothing is left, and what was there stays.
func TestWriteWholeFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"create", "write", "sync", "close", "rename"} {
		restore := Inject(func(o, _ string) Fault {
			if o == op {
				return Fault{Err: errFault}
			}
			return Fault{}
		})
		err := WriteFile(path, []byte("new"))
		restore()
		if !errors.Is(err, errFault) || content(t, path) != "old" {
			t.Errorf("%s fails: %v, %q", op, err, content(t, path))
		}
		if _, err := os.Lstat(path + ".partial"); err == nil {
			t.Errorf("%s fails: the partial file is left", op)
		}
	}
}

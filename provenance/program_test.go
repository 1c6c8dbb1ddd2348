package provenance

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

func TestThisIsTheExecutable(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	p, err := This()
	if err != nil || p.SHA256 != hex.EncodeToString(sum[:]) || p.Version != Version {
		t.Errorf("%+v (%v), want the hash of %s", p, err, path)
	}
	r, err := New("cpu/generic")
	if err != nil || len(r) != 2 || r.Value("program") != p.String() || r.Value("engine") != "cpu/generic" {
		t.Errorf("%v (%v)", r, err)
	}
}

func build(settings ...string) *debug.BuildInfo {
	info := &debug.BuildInfo{GoVersion: "go1.26"}
	for i := 0; i < len(settings); i += 2 {
		info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
	}
	return info
}

// What cannot read itself goes by its build, if that is like no other.
func TestProgramThatCannotReadItself(t *testing.T) {
	unreadable := func() (io.ReadCloser, error) { return nil, errors.New("permission denied") }
	clean := build("vcs.revision", "3f2a91c0d4", "vcs.modified", "false")
	p, err := identify(unreadable, clean)
	if err != nil || p.Revision != "3f2a91c" || len(p.SHA256) != 64 {
		t.Errorf("clean: %+v, %v", p, err)
	}
	if other, err := identify(unreadable, build("vcs.revision", "3f2a91c0d4", "vcs.modified", "false", "-tags", "purego")); err != nil || other.SHA256 == p.SHA256 {
		t.Errorf("other settings: %+v, %v, want another hash", other, err)
	}
	released := build()
	released.Main.Sum = "h1:abc"
	if _, err := identify(unreadable, released); err != nil {
		t.Errorf("released: %v", err)
	}
	for name, info := range map[string]*debug.BuildInfo{
		"no description": nil, "no revision": build(), "changes": build("vcs.revision", "3f2a91c0d4", "vcs.modified", "true"),
	} {
		if _, err := identify(unreadable, info); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	torn := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("x"), tornReader{})), nil
	}
	if q, err := identify(torn, clean); err != nil || q.SHA256 != p.SHA256 {
		t.Errorf("torn: %+v, %v, want %+v", q, err, p)
	}
}

type tornReader struct{}

func (tornReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

func TestRevision(t *testing.T) {
	for want, info := range map[string]*debug.BuildInfo{
		"3f2a91c":         build("vcs.revision", "3f2a91c0d4", "vcs.modified", "false"),
		"3f2a91c+changes": build("vcs.revision", "3f2a91c0d4", "vcs.modified", "true"),
		"":                build("vcs.revision", "3f2"),
	} {
		if got := revision(info); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (Program{"0.1.0", "3f2a91c", hashA}).Short(); got != "0.1.0 (3f2a91c, sha256 12ab34cd56ef…)" {
		t.Errorf("short: %s", got)
	}
}

package demo

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

func TestModelDirIsMadeOnceAndVerified(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache) // linux
	t.Setenv("HOME", cache)           // darwin
	t.Setenv("LocalAppData", cache)   // windows
	dir, err := ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(dir, cache) {
		t.Fatalf("ModelDir = %s, want it below %s", dir, cache)
	}
	weights := filepath.Join(dir, "model.safetensors")
	before, err := os.Stat(weights)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ModelDir(); err != nil || again != dir {
		t.Fatalf("second ModelDir = %q, %v, want %q", again, err, dir)
	}
	after, err := os.Stat(weights)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("a sound folder was written again")
	}

	data, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(weights, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ModelDir(); err != nil {
		t.Fatal(err)
	}
	repaired, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if string(repaired) != string(data) {
		t.Error("a damaged weight file was kept")
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the folder: %v, %v, want nothing", left, err)
	}
}

func TestModelDirFallsBackToTemporaryFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	for _, name := range []string{"XDG_CACHE_HOME", "HOME", "LocalAppData"} {
		t.Setenv(name, file) // a file: no directory can be made below it
	}
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp)
	dir, err := ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(dir, tmp) {
		t.Errorf("ModelDir = %s, want it below %s", dir, tmp)
	}
}

func TestPlaceRemovesStrangersAndBearsCompany(t *testing.T) {
	src := fstest.MapFS{"a": {Data: []byte("1")}, "b": {Data: []byte("2")}}
	dir := filepath.Join(t.TempDir(), "x", "demo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stranger"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := place(src, dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !holds(dir, src) {
		t.Error("the folder does not hold the files")
	}
}

func TestTextsAreThere(t *testing.T) {
	if n := strings.Count(string(Calibration()), "\n"); n != 55 {
		t.Errorf("calibration has %d lines, want 55", n)
	}
	if len(Evaluation()) != 1287656 {
		t.Errorf("evaluation has %d bytes, want 1287656", len(Evaluation()))
	}
}

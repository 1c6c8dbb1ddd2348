package regular

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if got, err := Read(path("a", "0123456789"), 10); err != nil || string(got) != "0123456789" {
		t.Errorf("Read = %q, %v", got, err)
	}
	sparse := path("sparse", "")
	if err := os.Truncate(sparse, 1<<40); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "a"):      "10 bytes, want at most 9",
		sparse:                       "1099511627776 bytes, want at most 9",
		link:                         "a link to a file that is missing",
		dir:                          "a folder, want a regular file",
		filepath.Join(dir, "absent"): "absent",
	} {
		if _, err := Read(file, 9); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want %q and the path in it", file, err, want)
		}
	}
	if _, err := Read(path("lfs", pointer+"v1\noid sha256:0"), 100); err == nil || !strings.Contains(err.Error(), "git lfs pull") {
		t.Errorf("a Git LFS pointer: %v", err)
	}
}

// A device has no end, and a file of /proc does not say its size.
func TestReadOfWhatHasNoSize(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /dev/zero and /proc")
	}
	if _, err := Read("/dev/zero", 9); err == nil || !strings.Contains(err.Error(), "/dev/zero: a device, want a regular file") {
		t.Errorf("/dev/zero: %v", err)
	}
	if _, err := Read("/proc/self/status", 9); err == nil || !strings.Contains(err.Error(), "more than 9 bytes") {
		t.Errorf("/proc/self/status: %v", err)
	}
	if got, err := Read("/proc/self/status", 1<<20); err != nil || len(got) == 0 {
		t.Errorf("/proc/self/status: %d bytes, %v", len(got), err)
	}
}

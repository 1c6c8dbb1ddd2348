//go:build unix

package regular

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadOfAPipeDoesNotWait(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := Read(pipe, 9); err == nil || !strings.Contains(err.Error(), "a pipe, want a regular file") {
		t.Errorf("a pipe: %v", err)
	}
}

//go:build !linux && !darwin && !freebsd

package fsys

// syncDir: Windows has no such call; NTFS journals names.
func syncDir(string) error { return nil }

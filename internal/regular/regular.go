// Package regular reads files that a user or a download names, and that
// therefore may be anything: a pipe that never answers, a device without an
// end, a sparse file of terabytes, the pointer that Git LFS leaves in a file's
// place.
package regular

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Open opens a regular file, through links as a Hugging Face cache has them,
// and returns its size in bytes. Anything else is refused unopened: to open a
// pipe would wait for its writer.
func Open(path string) (*os.File, int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		if _, lerr := os.Lstat(path); lerr == nil && errors.Is(err, fs.ErrNotExist) {
			return nil, 0, fmt.Errorf("%s: a link to a file that is missing: download it again", path)
		}
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %s, want a regular file", path, kind(st.Mode()))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	if st, err = f.Stat(); err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// kind names what is no regular file.
func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "not a regular file"
}

// Read returns the content of a regular file of at most limit bytes. The
// memory is what the file holds, whatever its size claims, and a Git LFS
// pointer is refused by that name.
func Read(path string, limit int64) ([]byte, error) {
	f, size, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", path, size, limit)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1)) // a file of /proc has size 0 and a content
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	if err := CheckPointer(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// pointer is how the file begins that Git leaves where Git LFS, which is not
// installed or was not run, would put the content.
const pointer = "version https://git-lfs.github.com/spec/"

// PointerBytes of a file are enough for CheckPointer.
const PointerBytes = len(pointer)

// CheckPointer returns an error that says what to do if head begins as a Git
// LFS pointer does.
func CheckPointer(head []byte) error {
	if bytes.HasPrefix(head, []byte(pointer)) {
		return errors.New("a Git LFS pointer in place of the file: fetch it with git lfs pull")
	}
	return nil
}

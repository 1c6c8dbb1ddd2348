package prune

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/crepe-llm/crepe/internal/fsys"
)

var (
	errDamaged = errors.New("damaged")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// seal writes what save writes, and its CRC-32C behind it.
func seal(w io.Writer, save func(io.Writer) error) error {
	h := crc32.New(castagnoli)
	if err := save(io.MultiWriter(w, h)); err != nil {
		return err
	}
	_, err := w.Write(h.Sum(nil))
	return err
}

// writeSealed writes the file at path whole, sealed.
func writeSealed(path string, save func(io.Writer) error) error {
	return fsys.WriteWhole(path, func(w io.Writer) error { return seal(w, save) })
}

// readSealed lets restore read the sealed file at path. The error is fs.ErrNotExist if
// there is none that is whole; of a damaged one damaged is told.
func readSealed(path string, restore func(io.Reader) error, damaged func(path string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	switch err := unseal(f, restore); {
	case err == nil:
		return nil
	case errors.Is(err, errDamaged):
		damaged(path)
		return fs.ErrNotExist
	default:
		return fmt.Errorf("%s: %w", path, err)
	}
}

// unseal lets restore read what seal has sealed, if its checksum holds; else the
// error is errDamaged, and nothing is restored.
func unseal(f *os.File, restore func(io.Reader) error) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h, size := crc32.New(castagnoli), max(0, st.Size()-crc32.Size)
	sum := make([]byte, crc32.Size)
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	if _, err := f.ReadAt(sum, size); err != nil || !bytes.Equal(sum, h.Sum(nil)) {
		return errDamaged
	}
	return restore(io.NewSectionReader(f, 0, size))
}

package prune

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
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

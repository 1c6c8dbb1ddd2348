package corpus

import (
	"fmt"
	"io"
)

// Bounds on what a file may claim of memory and disk. C4's shard has 356,317
// documents in 0.8 GB, the longest of 0.3 MB, packed to 0.3 GB.
const (
	maxDocuments = 1 << 25 // of a collection: 256 MiB of offsets
	maxDocument  = 64 << 20
	maxUnpacked  = 32 << 30 // bytes of a temporary file

	// A few bytes of a packed file can stand for any number of documents and
	// of bytes. Text is packed to a third or a fifth; these are far above.
	leastDocuments = 1 << 16  // and so many more for each byte of the file:
	documentsAByte = 8        // as many as there are bytes in an offset
	leastUnpacked  = 64 << 20 // bytes; and so many more for each byte of the file:
	unpackedAByte  = 200
)

// MaxText is the most bytes of a running or joined text.
const MaxText = 1 << 30

// documentsOf returns how many documents a packed file of size bytes may have.
func documentsOf(size int64) int {
	return int(min(maxDocuments, leastDocuments+documentsAByte*min(size, maxDocuments)))
}

// records is a collection whose documents lie one after the other in a file.
type records struct {
	name   string // of the source, for errors
	r      io.ReaderAt
	starts []int64 // of every document, and the end of the last
	decode func(raw []byte) (string, error)
	close  func() error
}

func (d *records) Len() int      { return len(d.starts) - 1 }
func (d *records) Running() bool { return false }
func (d *records) Close() error  { return d.close() }

func (d *records) Text(i int) (string, error) {
	raw := make([]byte, d.starts[i+1]-d.starts[i])
	if _, err := d.r.ReadAt(raw, d.starts[i]); err != nil {
		return "", fmt.Errorf("%s: document %d: %w", d.name, i+1, err)
	}
	text, err := d.decode(raw)
	if err != nil {
		return "", fmt.Errorf("%s: document %d: %w", d.name, i+1, err)
	}
	return text, nil
}

// running is one running text.
type running string

func (t running) Len() int                 { return 1 }
func (t running) Text(int) (string, error) { return string(t), nil }
func (t running) Running() bool            { return true }
func (t running) Close() error             { return nil }

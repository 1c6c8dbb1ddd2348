// Package hidden keeps the hidden states of many sequences between two
// decoder blocks: in memory, or in a file where they would not fit.
package hidden

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/crepe-llm/crepe/tensor"
)

// Store holds n sequences of tokens × width hidden states. It is used by one
// goroutine at a time.
type Store struct {
	n, tokens, width int
	mem              []float32     // all of them, or nil
	file             *os.File      // all of them, or nil
	one              tensor.Matrix // with a file: the sequence Get returned last
}

// Bytes returns what n sequences of tokens × width hidden states take.
func Bytes(n, tokens, width int) int64 { return 4 * int64(n) * int64(tokens) * int64(width) }

// New returns a store of zeros. An empty dir keeps it in memory; otherwise it
// lives in an unnamed file in dir, whose space is given back by Close or when
// the process ends.
func New(n, tokens, width int, dir string) (*Store, error) {
	s := &Store{n: n, tokens: tokens, width: width}
	if dir == "" {
		s.mem = make([]float32, n*tokens*width)
		return s, nil
	}
	f, err := os.CreateTemp(dir, "crepe-hidden-*")
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(Bytes(n, tokens, width)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	s.file = f
	s.one = tensor.NewMatrix(tokens, width)
	_ = os.Remove(f.Name()) // Windows keeps the name until Close
	return s, nil
}

// Len returns the number of sequences.
func (s *Store) Len() int { return s.n }

// Get returns the hidden states of sequence i. The matrix is the caller's to
// change until the next Get; Put makes the change last.
func (s *Store) Get(i int) (tensor.Matrix, error) {
	size := s.tokens * s.width
	if s.mem != nil {
		return tensor.Matrix{Rows: s.tokens, Cols: s.width, Data: s.mem[i*size : (i+1)*size]}, nil
	}
	_, err := s.file.ReadAt(bytes(s.one.Data), int64(i)*int64(size)*4)
	return s.one, err
}

// Put stores the matrix that the last Get(i) returned.
func (s *Store) Put(i int, x tensor.Matrix) error {
	size := s.tokens * s.width
	if len(x.Data) != size {
		panic(fmt.Sprintf("hidden: Put: %d × %d, want %d × %d", x.Rows, x.Cols, s.tokens, s.width))
	}
	if s.mem != nil {
		if dst := s.mem[i*size : (i+1)*size]; &dst[0] != &x.Data[0] {
			copy(dst, x.Data)
		}
		return nil
	}
	_, err := s.file.WriteAt(bytes(x.Data), int64(i)*int64(size)*4)
	return err
}

// Save writes all sequences to w.
func (s *Store) Save(w io.Writer) error {
	for i := range s.n {
		x, err := s.Get(i)
		if err != nil {
			return err
		}
		if _, err := w.Write(bytes(x.Data)); err != nil {
			return err
		}
	}
	return nil
}

// Restore reads what Save wrote.
func (s *Store) Restore(r io.Reader) error {
	for i := range s.n {
		x, err := s.Get(i)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(r, bytes(x.Data)); err != nil {
			return err
		}
		if err := s.Put(i, x); err != nil {
			return err
		}
	}
	return nil
}

// Close gives the memory or the file back.
func (s *Store) Close() error {
	s.mem = nil
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	_ = os.Remove(s.file.Name())
	return err
}

func bytes(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// Package hidden keeps the hidden states of many sequences between two
// decoder blocks: in memory, or in a file where they would not fit.
package hidden

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/tensor"
)

// Store holds n sequences of tokens × width hidden states. It is used by one
// goroutine at a time.
type Store struct {
	engine           engine.Engine
	n, tokens, width int
	all              engine.Mat    // of all sequences; with a file of the one that Get returned last
	file             *fsys.File    // of all of them; nil: all has them
	host             tensor.Matrix // one sequence on its way to a file, or from one
}

// Bytes returns what n sequences of tokens × width hidden states take.
func Bytes(n, tokens, width int) int64 { return 4 * int64(n) * int64(tokens) * int64(width) }

// New returns a store of zeros. An empty dir keeps it in memory of e; otherwise it
// lives in an unnamed file in dir, whose space is given back by Close or when
// the process ends.
func New(e engine.Engine, n, tokens, width int, dir string) (*Store, error) {
	s := &Store{engine: e, n: n, tokens: tokens, width: width}
	if dir == "" {
		s.all = e.NewMat(n*tokens, width)
		return s, nil
	}
	f, err := fsys.CreateTemp(dir, "crepe-hidden-")
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(Bytes(n, tokens, width)); err != nil {
		return nil, errors.Join(err, f.Close(), fsys.Remove(f.Name()))
	}
	s.file = f
	s.all = e.NewMat(tokens, width)
	_ = fsys.Remove(f.Name()) // Windows keeps the name until Close
	return s, nil
}

// Len returns the number of sequences.
func (s *Store) Len() int { return s.n }

// Get returns the hidden states of sequence i. They are the caller's to change
// until the next Get; Put makes the change last.
func (s *Store) Get(i int) (engine.Mat, error) {
	if s.file == nil {
		return s.all.Slice(i*s.tokens, (i+1)*s.tokens), nil
	}
	if _, err := s.file.ReadAt(bytes(s.buffer().Data), s.offset(i)); err != nil {
		return engine.Mat{}, err
	}
	s.engine.Upload(s.all, s.host)
	return s.all, nil
}

// Put stores what the last Get(i) returned.
func (s *Store) Put(i int, x engine.Mat) error {
	if x.Rows != s.tokens || x.Cols != s.width || x.Mem != s.all.Mem {
		panic(fmt.Sprintf("hidden: Put: %d × %d, want the %d × %d that Get returned", x.Rows, x.Cols, s.tokens, s.width))
	}
	if s.file == nil {
		return nil
	}
	s.engine.Download(s.buffer(), x)
	_, err := s.file.WriteAt(bytes(s.host.Data), s.offset(i))
	return err
}

// Save writes all sequences to w.
func (s *Store) Save(w io.Writer) error { return s.SaveFirst(w, s.n) }

// SaveFirst writes the first n sequences to w.
func (s *Store) SaveFirst(w io.Writer, n int) error {
	for i := range n {
		x, err := s.Get(i)
		if err != nil {
			return err
		}
		s.engine.Download(s.buffer(), x)
		if _, err := w.Write(bytes(s.host.Data)); err != nil {
			return err
		}
	}
	return nil
}

// Restore reads what Save wrote.
func (s *Store) Restore(r io.Reader) error {
	for i := range s.n {
		if _, err := io.ReadFull(r, bytes(s.buffer().Data)); err != nil {
			return err
		}
		x := s.all
		if s.file == nil {
			x = s.all.Slice(i*s.tokens, (i+1)*s.tokens)
		}
		s.engine.Upload(x, s.host)
		if err := s.Put(i, x); err != nil {
			return err
		}
	}
	return nil
}

// buffer returns host.
func (s *Store) buffer() tensor.Matrix {
	if s.host.Data == nil {
		s.host = tensor.NewMatrix(s.tokens, s.width)
	}
	return s.host
}

func (s *Store) offset(i int) int64 { return int64(i) * Bytes(1, s.tokens, s.width) }

// Close gives the memory or the file back.
func (s *Store) Close() error {
	s.all = engine.Mat{}
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	_ = fsys.Remove(s.file.Name())
	return err
}

func bytes(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

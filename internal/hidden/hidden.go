// Package hidden keeps the hidden states of many sequences between two
// decoder blocks: in the engine's memory, in the program's, or in a file.
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
	x                engine.Mat    // all sequences, or, kept elsewhere, the one that Get returned last
	kept             tensor.Matrix // all of them in the program's memory, if they are there
	file             *fsys.File    // or in a file
	host             tensor.Matrix // one sequence on its way to a file, or from one
}

// Bytes returns what n sequences of tokens × width hidden states take.
func Bytes(n, tokens, width int) int64 { return 4 * int64(n) * int64(tokens) * int64(width) }

// New returns a store of zeros in that place. A file has no name; its space is given
// back by Close or when the process ends.
func New(e engine.Engine, n, tokens, width int, at engine.Place) (*Store, error) {
	s := &Store{engine: e, n: n, tokens: tokens, width: width}
	_, separate := e.(engine.Own)
	switch {
	case at.Dir != "":
		if err := s.create(at.Dir); err != nil {
			return nil, err
		}
	case at.Host && separate:
		s.kept = tensor.NewMatrix(n*tokens, width)
	default:
		s.x = e.NewMat(n*tokens, width)
		return s, nil
	}
	s.x = e.NewMat(tokens, width)
	return s, nil
}

// create makes the file.
func (s *Store) create(dir string) error {
	f, err := fsys.CreateTemp(dir, "crepe-hidden-")
	if err != nil {
		return err
	}
	if err := f.Truncate(Bytes(s.n, s.tokens, s.width)); err != nil {
		return errors.Join(err, f.Close(), fsys.Remove(f.Name()))
	}
	s.file = f
	_ = fsys.Remove(f.Name()) // Windows keeps the name until Close
	return nil
}

// Len returns the number of sequences.
func (s *Store) Len() int { return s.n }

// resident reports whether the engine has all sequences in its memory.
func (s *Store) resident() bool { return s.file == nil && s.kept.Data == nil }

// at returns where sequence i is, or comes, in the engine's memory.
func (s *Store) at(i int) engine.Mat {
	if s.resident() {
		return s.x.Slice(i*s.tokens, (i+1)*s.tokens)
	}
	return s.x
}

// Get returns the hidden states of sequence i. They are the caller's to change
// until the next Get; Put makes the change last.
func (s *Store) Get(i int) (engine.Mat, error) {
	x := s.at(i)
	switch {
	case s.file != nil:
		if _, err := s.file.ReadAt(bytes(s.buffer().Data), s.offset(i)); err != nil {
			return engine.Mat{}, err
		}
		s.engine.Upload(x, s.host)
	case s.kept.Data != nil:
		s.engine.Upload(x, s.keptOf(i))
	}
	return x, nil
}

// Put stores what the last Get(i) returned.
func (s *Store) Put(i int, x engine.Mat) error {
	if x.Rows != s.tokens || x.Cols != s.width || x.Mem != s.x.Mem {
		panic(fmt.Sprintf("hidden: Put: %d × %d, want the %d × %d that Get returned", x.Rows, x.Cols, s.tokens, s.width))
	}
	switch {
	case s.file != nil:
		s.engine.Download(s.buffer(), x)
		_, err := s.file.WriteAt(bytes(s.host.Data), s.offset(i))
		return err
	case s.kept.Data != nil:
		s.engine.Download(s.keptOf(i), x)
	}
	return nil
}

// keptOf returns sequence i in the program's memory.
func (s *Store) keptOf(i int) tensor.Matrix {
	return s.kept.Slice(i*s.tokens, (i+1)*s.tokens)
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
		x := s.at(i)
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
	s.x, s.kept = engine.Mat{}, tensor.Matrix{}
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

package model

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// A Reader gives the blocks that LoadBlock does, in their order, also while it reads
// ahead into the memory of those that are released and another goroutine loads.
func TestReaderShared(t *testing.T) {
	for _, name := range []string{"llama3-gqa", "qwen3_moe", "qwen3_5"} {
		for _, ahead := range []bool{false, true} {
			m := open(t, filepath.Join(fixturesDir, name))
			opt := m.Options()
			opt.Ahead = ahead
			m = m.With(opt)
			for range 3 {
				blocks := m.Read(0, m.Blocks())
				for i := range m.Blocks() {
					got, err := blocks.Next()
					if err != nil {
						t.Fatal(err)
					}
					want := load(t, m, i)
					for k, l := range got.Linears() {
						a, aerr := l.Read()
						b, berr := want.Linears()[k].Read()
						if err := errors.Join(aerr, berr); err != nil {
							t.Fatal(err)
						}
						if l.Name != want.Linears()[k].Name || !slices.Equal(a.Bytes(), b.Bytes()) {
							t.Fatalf("%s, ahead %v: block %d: Linear %d is not that of LoadBlock", name, ahead, i, k)
						}
					}
					want.Release()
					got.Release()
				}
				blocks.Close()
			}
		}
	}
}

// What is wrong with a block is said when its turn comes, and a panic of the engine is
// raised in the caller. A Reader may be closed before its end.
func TestReaderErrors(t *testing.T) {
	m := openNonFinite(t, "model.layers.1.mlp.up_proj.weight", 3)
	opt := m.Options()
	opt.Ahead = true
	m = m.With(opt)
	blocks := m.Read(0, 2)
	first, err := blocks.Next()
	if err != nil {
		t.Fatalf("block 0: %v", err)
	}
	first.Release()
	if _, err := blocks.Next(); err == nil || !strings.Contains(err.Error(), "model.layers.1.mlp.up_proj.weight: element [0 3] is NaN") {
		t.Errorf("block 1: %v, want its NaN", err)
	}
	blocks.Close()

	opt.Engine = failing{opt.Engine}
	m = m.With(opt)
	err = func() (err error) {
		defer engine.Recover(&err)
		blocks := m.Read(1, 2)
		defer blocks.Close()
		_, err = blocks.Next()
		return err
	}()
	if !errors.Is(err, errFull) {
		t.Errorf("error %v, want %v", err, errFull)
	}
	opt.Engine = opt.Engine.(failing).Engine
	m = m.With(opt)
	blocks = m.Read(0, 2)
	if _, err := blocks.Next(); err != nil {
		t.Fatal(err)
	}
	blocks.Close() // while block 1 is read
}

var errFull = errors.New("full")

// failing is an engine without memory.
type failing struct{ engine.Engine }

func (failing) NewVec([]float32) engine.Vec { panic(&engine.Failure{Err: errFull}) }

func (failing) Load(*tensor.Weight) (engine.Op, error) { return nil, errFull }

package hidden

import (
	stdbytes "bytes"
	"os"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
)

// separate is an engine that counts what it is asked to have in its memory.
type separate struct {
	*cpu.Engine
	rows int
}

func (*separate) Memory() int64 { return 1 << 20 }

func (e *separate) NewMat(rows, cols int) engine.Mat {
	e.rows += rows
	return e.Engine.NewMat(rows, cols)
}

func TestStoreKeepsWhatWasPut(t *testing.T) {
	own := cpu.New(engine.F32)
	for name, c := range map[string]struct {
		e    engine.Engine
		at   engine.Place
		rows int // of a separate engine's memory
	}{
		"memory":              {own, engine.Place{}, 0},
		"the same memory":     {own, engine.Place{Host: true}, 0},
		"file":                {own, engine.Place{Dir: t.TempDir()}, 0},
		"a device's memory":   {&separate{Engine: own}, engine.Place{}, 6},
		"the host's memory":   {&separate{Engine: own}, engine.Place{Host: true}, 2},
		"a file for a device": {&separate{Engine: own}, engine.Place{Dir: t.TempDir()}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			e := c.e
			s, err := New(e, 3, 2, 5, c.at)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for i := range s.Len() {
				x, err := s.Get(i)
				if err != nil {
					t.Fatal(err)
				}
				m := enginetest.Download(e, x)
				for j := range m.Data {
					if m.Data[j] != 0 {
						t.Fatalf("fresh store holds %v", m.Data[j])
					}
					m.Data[j] = float32(100*i + j)
				}
				e.Upload(x, m)
				if err := s.Put(i, x); err != nil {
					t.Fatal(err)
				}
			}
			var saved stdbytes.Buffer
			if err := s.Save(&saved); err != nil {
				t.Fatal(err)
			}
			if d, ok := e.(*separate); ok && d.rows != c.rows {
				t.Errorf("%d rows in the device's memory, want %d", d.rows, c.rows)
			}
			again, err := New(e, 3, 2, 5, engine.Place{})
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Restore(&saved); err != nil {
				t.Fatal(err)
			}
			for _, s := range []*Store{s, again} {
				for _, i := range []int{2, 0, 1} {
					x, err := s.Get(i)
					if err != nil {
						t.Fatal(err)
					}
					for j, v := range enginetest.Download(e, x).Data {
						if v != float32(100*i+j) {
							t.Fatalf("sequence %d element %d: got %v, want %d", i, j, v, 100*i+j)
						}
					}
				}
			}
			if err := again.Restore(stdbytes.NewReader(make([]byte, 7))); err == nil {
				t.Fatal("Restore of 7 bytes: no error")
			}
		})
	}
}

func TestFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	s, err := New(cpu.New(engine.F32), 1, 4, 4, engine.Place{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Fatalf("left %v (%v), want nothing", left, err)
	}
	if _, err := New(cpu.New(engine.F32), 1, 4, 4, engine.Place{Dir: dir + "/absent"}); err == nil {
		t.Fatal("New in an absent folder: no error")
	}
}

package cuda_test

import (
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/tensor"
)

// Products read the weight that they name, while a goroutine loads the next one into
// memory that was freed when only posted products still read it. No more memory is taken
// than two weights and what was there.
func TestWeightsComeAside(t *testing.T) {
	d := device(t)
	e := cuda.New(d, engine.F32)
	const n, rounds = 256, 12
	load := func(v int) (op engine.Op, err error) {
		defer engine.Recover(&err)
		w := tensor.NewWeight(tensor.F32, n, n)
		row := make([]float32, n)
		for j := range row {
			row[j] = float32(v)
		}
		for i := range n {
			w.SetRow(i, 0, row)
		}
		op, err = e.Load(w)
		for i := range n { // it has been copied
			w.SetRow(i, 0, make([]float32, n))
		}
		return op, err
	}
	ones := tensor.NewMatrix(n, n)
	for i := range ones.Data {
		ones.Data[i] = 1
	}
	x, s := enginetest.Upload(e, ones), e.NewStream()
	type loaded struct {
		op  engine.Op
		err error
	}
	coming := make(chan loaded, 1)
	var products []engine.Mat
	for range rounds {
		products = append(products, e.NewMat(n, n))
	}
	free := int64(0)
	for v := range rounds + 1 {
		if v > 0 {
			l := <-coming
			if l.err != nil {
				t.Fatal(l.err)
			}
			defer func(v int) {
				for _, got := range enginetest.Download(e, products[v-1]).Data {
					if got != float32(n*v) {
						t.Fatalf("a product with weights of %d: %v, want %d", v, got, n*v)
					}
				}
			}(v)
			s.Linear(products[v-1], x, engine.Proj{W: l.op, N: n})
			engine.Free(l.op)
		}
		go func() {
			op, err := load(v + 1)
			coming <- loaded{op, err}
		}()
		switch now, _, err := d.MemoryInfo(); {
		case err != nil:
			t.Fatal(err)
		case v == 3:
			free = now
		case v > 3 && now < free:
			t.Errorf("weight %d: %d bytes are free, %d were before", v, now, free)
		}
	}
	<-coming
}

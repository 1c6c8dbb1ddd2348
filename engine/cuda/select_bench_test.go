package cuda

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// BenchmarkSelect scores and selects in a Linear of a 7B model, until the mask is in the
// card's memory. bytes/op are those that the comment of scores counts, without the masks';
// the sums' are counted once.
func BenchmarkSelect(b *testing.B) {
	d, err := Open(Options{})
	if err != nil {
		b.Skip(err)
	}
	defer d.Close()
	rows, cols := 4096, 11008
	if os.Getenv(driver.PathVariable) != "" { // the emulator takes its time
		rows, cols = 64, 1100
	}
	rng := rand.New(rand.NewPCG(1, 2))
	w := tensor.NewWeight(tensor.BF16, rows, cols)
	row := make([]float32, cols)
	for i := range rows {
		for j := range row {
			row[j] = float32(0.02 * rng.NormFloat64())
		}
		w.SetRow(i, 0, row)
	}
	e := New(d, engine.BF16)
	op, err := e.Load(w)
	if err != nil {
		b.Fatal(err)
	}
	norms := make([]float32, cols)
	for j := range norms {
		norms[j] = float32(rng.ExpFloat64())
	}
	half, err := pattern.ParseSparsity("50%")
	if err != nil {
		b.Fatal(err)
	}
	bytes := float64(len(w.Bytes()))
	for _, f := range []struct {
		name string
		at   engine.Importance
		sums float64 // bytes
	}{
		{"wanda", engine.Importance{Delta: 1}, 0},
		{"ria", engine.Importance{Alpha: 1, Beta: 1}, bytes},
		{"crepe9", engine.Importance{Alpha: 1, Beta: 1, Gamma: 1, Radius: 4}, bytes},
	} {
		f.at.Norms = norms
		for _, t := range []struct {
			name   string
			target pattern.Target
			moved  float64 // bytes
		}{
			{"rows", pattern.Target{Sparsity: half, Group: pattern.Row}, bytes},
			{"2of4", pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}, bytes},
			{"matrix", pattern.Target{Sparsity: half}, bytes + 4*4*float64(rows*cols)},
		} {
			b.Run(f.name+"/"+t.name, func(b *testing.B) {
				k, err := t.target.Pruned(rows, cols)
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				for b.Loop() {
					s, err := e.Scores(op, 0, rows, f.at)
					if err != nil {
						b.Fatal(err)
					}
					s.(*scores).post(t.target, k, nil)
					s.Release()
				}
				d.Sync(d.Main)
				seconds := time.Since(start).Seconds() / float64(b.N) // b's own time ends before Sync
				b.ReportMetric(1e3*seconds, "ms/op")
				b.ReportMetric((f.sums+t.moved)/seconds/1e9, "GB/s")
			})
		}
	}
}

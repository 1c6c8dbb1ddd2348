package model

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// mixtures are the fixtures with experts.
var mixtures = []string{"mixtral", "qwen3_moe"}

// expertBytes returns the size of all experts of block i and of the largest.
func expertBytes(m *Model, i int) (all, largest int64) {
	all, largest, _ = m.bind(m.binder(), i).bytes()
	return all, largest
}

// TestStreamedExperts demands the same bits with experts in memory as with
// some of them, or all, read when tokens reach them; and no more memory than
// ExpertBytes says.
func TestStreamedExperts(t *testing.T) {
	for _, name := range mixtures {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixturesDir, name)
			ids := sequences(golden.Read(t, filepath.Join(dir, "golden.safetensors"))["input_ids"])[0]
			resident := open(t, dir)
			want := run(t, resident, atOnce(resident), ids, []int{len(ids)})
			all, largest := expertBytes(resident, 0)
			for _, limit := range []int64{1, largest, 2 * largest, all - 1, all} {
				m := open(t, dir).WithExpertBytes(limit)
				got := run(t, m, atOnce(m), ids, []int{len(ids)})
				golden.Compare(t, fmt.Sprintf("at most %d of %d bytes", limit, all), got.Data, want.Data, golden.Tolerance{})

				m = open(t, dir).WithExpertBytes(limit)
				_, _, others := m.bind(m.binder(), 0).bytes()
				b := load(t, m, 0)
				x := embed(t, m, [][]int32{ids})[0]
				forward(t, b, atOnce(m), x)
				held := -others
				for _, in := range b.Inputs() {
					for _, l := range in.Linears {
						if l.op != nil {
							held += l.op.Bytes()
						}
					}
				}
				if got := held + int64(poolBytes(m.pool)); got > max(limit, largest) {
					t.Errorf("at most %d bytes: experts took %d", limit, got)
				}
				b.Release()
			}
		})
	}
}

// TestStreamedStatistics gathers them from experts that are read on the way.
func TestStreamedStatistics(t *testing.T) {
	for _, name := range mixtures {
		dir := filepath.Join(fixturesDir, name)
		var seen [2]map[string]*stats.Input
		for i, limit := range []int64{0, 1} {
			m := open(t, dir).WithExpertBytes(limit)
			ids := sequences(golden.Read(t, filepath.Join(dir, "golden.safetensors"))["input_ids"])
			seen[i] = statistics(t, load(t, m, 0), atOnce(m), embed(t, m, ids))
		}
		for l, s := range seen[0] {
			golden.Compare(t, l, seen[1][l].ColSq, s.ColSq, golden.Tolerance{})
		}
	}
}

// TestFitBlocks asks for every amount of room that matters.
func TestFitBlocks(t *testing.T) {
	m := open(t, fixturesDir+"/qwen3_moe") // blocks with experts, and one without
	most, least := int64(0), int64(0)
	for i := range m.Blocks() {
		all, largest, others := m.bind(m.binder(), i).bytes()
		most, least = max(most, others+all), max(least, others+largest)
	}
	for _, room := range []int64{0, least - 1, least, least + 1, (least + most) / 2, most - 1, most, most + 1} {
		limit, block := m.FitBlocks(room)
		if want := min(max(room, least), most); block > want {
			t.Errorf("room for %d: a block takes %d, want at most %d", room, block, want)
		}
		if (limit == 0) != (room >= most) {
			t.Errorf("room for %d of %d: limit %d", room, most, limit)
		}
	}
	if limit, block := open(t, fixturesDir+"/llama-mha").FitBlocks(1); limit != 0 || block < 2 {
		t.Errorf("Llama: limit %d, block %d, want no limit", limit, block)
	}
}

// TestExpertsFromAnotherFolder reads streamed experts from a copy in which one
// Linear is zero, and not from one with other shapes.
func TestExpertsFromAnotherFolder(t *testing.T) {
	const changed = "model.layers.0.block_sparse_moe.experts.2.w2"
	dir := variant(t, "mixtral", func(_ map[string]any, ts map[string]*rawTensor) { clear(ts[changed+".weight"].data) })
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	m := open(t, fixturesDir+"/mixtral").WithExpertBytes(1)
	b := load(t, m, 0)
	if err := b.ReadFrom(inv); err != nil {
		t.Fatal(err)
	}
	for _, in := range b.Inputs() {
		for _, l := range in.Linears {
			w, err := l.Read()
			if err != nil {
				t.Fatal(err)
			}
			if zero := w.Zeros() == l.Rows*l.Cols; zero != (l.Name == changed) {
				t.Errorf("%s: all zero: %v", l.Name, zero)
			}
			l.Unload()
		}
	}
	other, err := checkpoint.Open(fixturesDir + "/qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := b.ReadFrom(other); err == nil || !strings.Contains(err.Error(), "tensor model.layers.0.self_attn.q_proj.weight") {
		t.Errorf("got %v, want an error that names the first tensor", err)
	}
}

// TestStreamedExpertThatCannotBeRead damages an expert after Open: a Run, kept or
// not, must say so.
func TestStreamedExpertThatCannotBeRead(t *testing.T) {
	dir := variant(t, "mixtral", func(map[string]any, map[string]*rawTensor) {})
	m, err := tryOpen(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	m = m.WithExpertBytes(1)
	b := load(t, m, 0)
	if err := os.Truncate(filepath.Join(dir, "model.safetensors"), 1<<14); errors.Is(err, fs.ErrPermission) {
		t.Skip(err) // Windows keeps open files as they are
	} else if err != nil {
		t.Fatal(err)
	}
	ids := []int32{1, 2, 3, 4, 5, 6, 7, 8}
	x := tensor.NewMatrix(len(ids), m.Width())
	for i := range x.Data {
		x.Data[i] = float32(i%7) - 3
	}
	for name, err := range map[string]error{
		"observing": atOnce(m).run(b, x, Mode{Tap: func(*Input, engine.Mat) {}, Keep: true}),
		"forward":   atOnce(m).run(b, x, Mode{}),
	} {
		if err == nil || !strings.Contains(err.Error(), "block_sparse_moe.experts.") {
			t.Errorf("%s: %v, want an error that names the tensor", name, err)
		}
	}
}

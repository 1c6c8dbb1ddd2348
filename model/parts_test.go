package model

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// TestInputsInExecutionOrder holds names, order and shapes of the Linears
// against the order in which transformers reaches them.
func TestInputsInExecutionOrder(t *testing.T) {
	for _, name := range golden.Folders(t, fixturesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixturesDir, name)
			var meta struct {
				Linears []struct {
					Name string
					Out  int `json:"out_features"`
					In   int `json:"in_features"`
				} `json:"prunable_linears"`
			}
			readJSON(t, filepath.Join(dir, "meta.json"), &meta)
			m := open(t, dir)
			var got, want []string
			for _, l := range meta.Linears {
				want = append(want, fmt.Sprintf("%s %d×%d", l.Name, l.Out, l.In))
			}
			for i := range m.Blocks() {
				for _, l := range m.Linears(i) {
					got = append(got, fmt.Sprintf("%s %d×%d", l.Name, l.Rows, l.Cols))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// TestAttention holds the Linears that are the attention's against their names,
// which every architecture here has in common.
func TestAttention(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, _ map[string]golden.Tensor) {
		n := 0
		for i := range m.Blocks() {
			for _, l := range m.Linears(i) {
				want := strings.Contains(l.Name, ".self_attn.") || strings.Contains(l.Name, ".linear_attn.")
				if l.Attention != want {
					t.Errorf("%s: attention %v", l.Name, l.Attention)
				}
				if want {
					n++
				}
			}
		}
		if n < 2*m.Blocks() {
			t.Errorf("%d Linears of attention in %d blocks", n, m.Blocks())
		}
	})
}

// TestStateOfManySequences passes sequences of several lengths through one
// State; each must come out as from a fresh one.
func TestStateOfManySequences(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		ids := sequences(want["input_ids"])[0]
		st := atOnce(m)
		for _, n := range []int{24, 3, 16, 17, 24} {
			got := run(t, m, st, ids[:n], []int{n})
			fresh := run(t, m, atOnce(m), ids[:n], []int{n})
			golden.Compare(t, fmt.Sprintf("%d tokens", n), got.Data, fresh.Data, golden.Tolerance{})
		}
	})
}

// TestExpertsWithoutTokens routes all tokens to two of four experts: the
// others are not tapped.
func TestExpertsWithoutTokens(t *testing.T) {
	m := open(t, filepath.Join(fixturesDir, "mixtral"))
	block := load(t, m, 0)
	experts := expertsOf(block)
	router := tensor.NewWeight(tensor.F32, experts.router.Rows, experts.router.Cols)
	if err := experts.router.Write(router); err != nil { // all logits equal: the lower indices go first
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	x := tensor.NewMatrix(9, m.Width())
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	seen := map[string]int{}
	observe(t, block, atOnce(m), x, func(in *Input, x engine.Mat) { seen[in.Name] += x.Rows })
	want := map[string]int{}
	for _, in := range block.Inputs()[:2+4] {
		want[in.Name] = 9
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("tokens seen: %v, want %v", seen, want)
	}
}

package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/crepe-llm/crepe/prune"
)

// idsFile makes a file of so many sequences of 64 ids below vocab.
func idsFile(t *testing.T, sequences, vocab int, seed uint64) string {
	t.Helper()
	const seqLen = 64
	rng := rand.New(rand.NewPCG(seed, 0))
	header := fmt.Sprintf(`{"input_ids":{"dtype":"I64","shape":[%d,%d],"data_offsets":[0,%d]}}`, sequences, seqLen, 8*sequences*seqLen)
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	for range sequences * seqLen {
		file = binary.LittleEndian.AppendUint64(file, uint64(rng.IntN(vocab)))
	}
	path := filepath.Join(t.TempDir(), "ids.safetensors")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// A search of a mixture of experts, a hybrid and fused Linears: with hidden states in
// files it finds the same, and pruned by its recipe the model has the perplexity that
// it says. A grid of two architectures has of each what a grid of it alone has.
func TestSearchFixtures(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	const vocab = 320
	text, verify := idsFile(t, 16, vocab, 1), idsFile(t, 8, vocab, 2)
	texts := []string{"--calibration", text, "--seqlen", "64", "--json"}
	for _, name := range []string{"mixtral", "qwen3_5", "phi3"} {
		t.Run(name, func(t *testing.T) {
			model, dir := filepath.Join(fixturesDir, name), t.TempDir()
			search := append([]string{"search", model, "--verify", verify, "--windows", "8", "--trials", "4", "--top", "3"}, texts...)
			var rep searchReport
			command(t, &rep, append(search, "--study", filepath.Join(dir, "a.study"))...)
			if rep.Best.Perplexity != rep.Candidates[0].Perplexity || rep.Verified < 5 || rep.Verified > 7 || rep.InFull < 1 {
				t.Errorf("%+v", rep)
			}
			var low searchReport
			command(t, &low, append(search, "--study", filepath.Join(dir, "b.study"), "--memory", "129MiB")...)
			if !reflect.DeepEqual(low.Candidates, rep.Candidates) {
				t.Errorf("with hidden states in files: %+v, want %+v", low.Candidates, rep.Candidates)
			}
			out := filepath.Join(dir, "out")
			var pruned prune.Report
			command(t, &pruned, "prune", model, "--recipe", rep.Recipe, "--eval", "none", "-o", out, "--json")
			var e evalReport
			command(t, &e, "eval", out, "--data", verify, "--windows", "8", "--json")
			if d := e.Perplexity/rep.Best.Perplexity - 1; !(d*d <= 1e-24) { // sums in another order
				t.Errorf("pruned by %s: perplexity %v, want %v", rep.Recipe, e.Perplexity, rep.Best.Perplexity)
			}
		})
	}
	texts[1] = idsFile(t, 32, vocab, 3)
	grid := func(models ...string) (cells []any) {
		args := []string{"compare"}
		for _, m := range models {
			args = append(args, filepath.Join(fixturesDir, m))
		}
		args = append(args, "--samples", "16", "--methods", "ria+sparsegpt,pho", "--trials", "4", "--top", "2", "--patterns", "2:4", "--eval", verify, "--windows", "8", "--study", filepath.Join(t.TempDir(), "c.study"))
		var rep map[string]any
		command(t, &rep, append(args, texts...)...)
		return timeless(rep["models"]).([]any)
	}
	both := grid("mixtral", "qwen3_5")
	if one, two := grid("mixtral"), grid("qwen3_5"); len(both) != 2 || !reflect.DeepEqual(both, []any{one[0], two[0]}) {
		t.Errorf("both models %v, want %v and %v", both, one, two)
	}
}

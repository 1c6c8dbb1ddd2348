package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTwoSetsOfWeights: where model.safetensors lies beside the shards of another
// model, it is read, as transformers reads it, and every command says so.
func TestTwoSetsOfWeights(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	from := filepath.Join(fixturesDir, "llama3-gqa")
	ids := filepath.Join(from, "golden.safetensors")
	dir := filepath.Join(t.TempDir(), "both")
	var pruned, both evalReport
	command(t, new(any), "prune", from, "-o", dir, "--method", "magnitude", "--eval", "none", "--json")
	command(t, &pruned, "eval", dir, "--data", ids, "--compute", "f32", "--json")
	shards, err := filepath.Glob(filepath.Join(from, "model*"))
	if err != nil || len(shards) != 4 {
		t.Fatalf("%v, %v, want three shards and their index", shards, err)
	}
	for _, s := range shards {
		text, err := os.ReadFile(s)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(s)), text, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	command(t, &both, "eval", dir, "--data", ids, "--compute", "f32", "--json")
	if both.NLL != pruned.NLL {
		t.Errorf("%v nats a token, want %v, those of model.safetensors", both.NLL, pruned.NLL)
	}
	for _, args := range [][]string{
		{"eval", dir, "--data", ids}, {"inspect", dir},
		{"prune", dir, "-o", filepath.Join(t.TempDir(), "out"), "--method", "magnitude", "--eval", "none"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(args, &stdout, &stderr); code != exitOK {
			t.Fatalf("crepe %q: exit code %d: %s", args, code, &stderr)
		}
		for _, want := range []string{"model.safetensors and the 3 files of model.safetensors.index.json hold two different models", "model.safetensors is read"} {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("crepe %q: %s, want %q in it", args, &stderr, want)
			}
		}
	}
}

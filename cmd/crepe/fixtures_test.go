package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/prune"
)

// The fixtures are one tiny model an architecture; their README says what is
// in them. They have no tokenizer: texts are the goldens' ids.
const fixturesDir = "../../testdata/fixtures"

// TestFixtures inspects, measures and prunes every fixture by the command line.
func TestFixtures(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	for _, name := range golden.Folders(t, fixturesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixturesDir, name)
			ids := filepath.Join(dir, "golden.safetensors")
			in := inspectFixture(t, dir)

			g := golden.Read(t, ids)
			var dense evalReport
			command(t, &dense, "eval", dir, "--data", ids, "--compute", "f32", "--json")
			// Logits agree within 2e-4 (package model's TestGolden), so what is
			// computed from them does within twice that.
			if want := golden.NLL(g["input_ids"], g["logits"]); !(math.Abs(float64(dense.NLL)-want) <= 4e-4) {
				t.Errorf("eval: %v nats a token, want %v", dense.NLL, want)
			}

			out := filepath.Join(t.TempDir(), "out")
			var rep prune.Report
			fused := "whole"
			if strings.HasPrefix(name, "phi3") || strings.HasPrefix(name, "qwen3_5") {
				fused = "split"
			}
			command(t, &rep, "prune", dir, "-o", out, "--pattern", "2:4", "--fused", fused,
				"--calibration", ids, "--eval", ids, "--compute", "f32", "--json")
			if rep.Dense.NLL != dense.NLL || rep.Sparsity.Measured != 0.5 {
				t.Errorf("prune: dense %v nats a token, sparsity %v, want %v and 0.5", rep.Dense.NLL, rep.Sparsity.Measured, dense.NLL)
			}
			var pruned evalReport
			command(t, &pruned, "eval", out, "--data", ids, "--compute", "f32", "--memory", "1GiB", "--json")
			if pruned.NLL != rep.Pruned.NLL {
				t.Errorf("eval of the output: %v nats a token, want %v as prune reports", pruned.NLL, rep.Pruned.NLL)
			}
			checkPacked(t, out, ids)
			var after inspection
			command(t, &after, "inspect", out, "--json")
			if after.Parameters != in.Parameters || after.Bytes != in.Bytes || after.Manifest == nil || after.Manifest.Recipe.Fused != fused {
				t.Errorf("inspect of the output: %+v, want the size of the input and its recipe", after)
			}
		})
	}
}

// checkPacked packs the folder plain, measures it in both types of products as the plain
// one is measured, and unpacks it again.
func checkPacked(t *testing.T, plain, ids string) {
	t.Helper()
	packed, again := filepath.Join(t.TempDir(), "packed"), filepath.Join(t.TempDir(), "again")
	var p packing
	command(t, &p, "pack", plain, "-o", packed, "--json")
	if p.Linears == 0 || p.All >= p.AllPlain {
		t.Fatalf("pack: %+v, want Linears that are smaller", *p.Result)
	}
	for _, compute := range []string{"f32", "bf16"} {
		var want, got evalReport
		command(t, &want, "eval", plain, "--data", ids, "--compute", compute, "--json")
		command(t, &got, "eval", packed, "--data", ids, "--compute", compute, "--json")
		if got.NLL != want.NLL {
			t.Errorf("eval of the packed folder, %s: %v nats a token, want the plain one's %v", compute, got.NLL, want.NLL)
		}
	}
	command(t, &p, "unpack", packed, "-o", again, "--json")
	sameFolder(t, again, plain)
}

// sameFolder fails unless two folders have the same files, byte for byte.
func sameFolder(t *testing.T, got, want string) {
	t.Helper()
	names := func(dir string) []string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	if a, b := names(got), names(want); !slices.Equal(a, b) {
		t.Fatalf("files %v, want %v", a, b)
	}
	for _, name := range names(want) {
		a, err := os.ReadFile(filepath.Join(got, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: other bytes than in %s", name, want)
		}
	}
}

// command runs a command line and reads its JSON into v.
func command(t *testing.T, v any, args ...string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, &stdout, &stderr); code != exitOK {
		t.Fatalf("crepe %q: exit code %d: %s", args, code, &stderr)
	}
	if err := json.Unmarshal(stdout.Bytes(), v); err != nil {
		t.Fatalf("crepe %q: %v", args, err)
	}
}

// inspectFixture holds what crepe inspect says against meta.json.
func inspectFixture(t *testing.T, dir string) inspection {
	t.Helper()
	var meta struct {
		Class   string `json:"model_class"`
		Blocks  int    `json:"num_hidden_layers"`
		Linears []struct {
			Name string
			Rows int `json:"out_features"`
			Cols int `json:"in_features"`
		} `json:"prunable_linears"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err == nil {
		err = json.Unmarshal(text, &meta)
	}
	if err != nil {
		t.Fatal(err)
	}
	var in inspection
	command(t, &in, "inspect", dir, "--json")
	if in.Architecture != meta.Class || in.Blocks != meta.Blocks || len(in.Linears) != len(meta.Linears) || len(meta.Linears) == 0 {
		t.Fatalf("inspect: %s, %d blocks, %d Linears, want %s, %d, %d",
			in.Architecture, in.Blocks, len(in.Linears), meta.Class, meta.Blocks, len(meta.Linears))
	}
	for i, want := range meta.Linears {
		got := in.Linears[i]
		if fmt.Sprint(got.Name, got.Rows, got.Cols, got.Sparsity) != fmt.Sprint(want.Name, want.Rows, want.Cols, 0.0) {
			t.Errorf("inspect: Linear %d is %+v, want %+v", i, got, want)
		}
	}
	return in
}

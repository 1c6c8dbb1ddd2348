package model

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// TestParts demands that the parts of a fused matrix are its rows, in order
// or by turns.
func TestParts(t *testing.T) {
	for fixture, want := range map[string]map[string]string{
		"phi3":      {"qkv_proj": "q 0-64 k 64-96 v 96-128", "gate_up_proj": "gate 0-160 up 160-320"},
		"qwen3_5":   {"in_proj_qkv": "q 0-32 k 32-64 v 64-160", "q_proj": "query 0-224 64/32 gate 32-256 64/32"},
		"llama-mha": {},
	} {
		m := open(t, filepath.Join(fixturesDir, fixture))
		found := map[string]bool{}
		for i := range m.Blocks() {
			for _, l := range m.Linears(i) {
				name := l.Name[strings.LastIndexByte(l.Name, '.')+1:]
				var parts []string
				rows := 0
				for _, p := range l.Parts {
					rows += p.Rows()
					text := fmt.Sprintf("%s %d-%d", p.Name, p.Lo, p.Hi)
					if p.Step > 0 {
						text += fmt.Sprintf(" %d/%d", p.Step, p.Run)
					}
					parts = append(parts, text)
				}
				if got := strings.Join(parts, " "); got != want[name] {
					t.Errorf("%s: parts %q, want %q", l.Name, got, want[name])
				}
				if len(parts) > 0 {
					found[name] = true
					if end := l.Parts[len(l.Parts)-1].Hi; end != l.Rows || rows != l.Rows {
						t.Errorf("%s: parts end at row %d and have %d rows, want %d", l.Name, end, rows, l.Rows)
					}
				}
			}
		}
		if len(found) != len(want) {
			t.Errorf("%s: fused are %v, want %v", fixture, found, want)
		}
	}
}

// TestShare gives each Linear the share of the tokens that enter it, on average.
func TestShare(t *testing.T) {
	for fixture, want := range map[string]float64{"mixtral": 2.0 / 4, "llama-mha": 1} {
		infos := open(t, filepath.Join(fixturesDir, fixture)).Linears(0)
		if first, last := infos[0].Share, infos[len(infos)-1].Share; first != 1 || last != want {
			t.Errorf("%s: shares %v and %v, want 1 and %v", fixture, first, last, want)
		}
	}
}

// TestEveryArchitectureHasAFixture: what is registered is held against
// transformers somewhere.
func TestEveryArchitectureHasAFixture(t *testing.T) {
	var have []string
	for _, name := range golden.Folders(t, fixturesDir) {
		text, err := os.ReadFile(filepath.Join(fixturesDir, name, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseConfig(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		have = append(have, c.Architecture)
	}
	for _, a := range Architectures() {
		if !slices.Contains(have, a) {
			t.Errorf("%s: no fixture in %s", a, fixturesDir)
		}
	}
}

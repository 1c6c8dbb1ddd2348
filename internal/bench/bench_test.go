package bench

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/progress"
)

// No time is judged here, only that everything is measured and adds up.
func TestQuickRunMeasuresEveryGroup(t *testing.T) {
	updates := 0
	r, err := Run(t.Context(), Options{Quick: true, Progress: func(progress.Update) { updates++ }})
	if err != nil {
		t.Fatal(err)
	}
	peaks := 2
	if cpu.AVX512BF16 {
		peaks = 3
	}
	if len(r.Peaks) != peaks || r.BF16 != cpu.AVX512BF16 || r.Level != cpu.Current().String() || !r.Quick || updates == 0 {
		t.Errorf("report %+v after %d updates, want %d peaks", r, updates, peaks)
	}
	rates := map[string]float64{}
	for _, c := range r.Peaks {
		rates[c.Name] = c.Rate
	}
	var groups []string
	for _, c := range append(r.Peaks, r.Cases...) {
		if !(c.Seconds > 0) || c.Runs < minRuns || !(c.Rate > 0) || c.Name == "" || c.Unit == "" {
			t.Errorf("case %+v, want a time and a rate", c)
		}
		if want := rates[c.Of]; (c.Of != "") != (c.Share > 0) || c.Of != "" && c.Share != c.Rate/want {
			t.Errorf("case %+v, want the share of %v", c, want)
		}
		if !slices.Contains(groups, c.Group) {
			groups = append(groups, c.Group)
		}
	}
	want := []string{"peak", "product", "matrix-vector", "attention", "score and select", "gram", "factor", "sparsegpt sweep", "tokenizer"}
	if !slices.Equal(groups, want) {
		t.Errorf("groups %q, want %q", groups, want)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestRunStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
}

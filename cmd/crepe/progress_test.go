package main

import (
	"strings"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/progress"
)

// 40 windows pass 30 blocks and the head: lines count windows, never windows ×
// blocks, and the time left is that of all blocks.
func TestPlainLine(t *testing.T) {
	var log strings.Builder
	m := newMeter(&log)
	bar := progress.Func(m.update).Start("perplexity", 31*40, "windows")
	for range 12 {
		bar.Part("perplexity, block", 40)
		bar.Add(40)
	}
	bar.Part("perplexity, block 13 of 30", 40)
	m.printed = time.Time{} // as if the last line were long ago
	bar.Add(16)
	if want := "perplexity, block 13 of 30: 16 of 40 windows"; !strings.Contains(log.String(), want) {
		t.Errorf("no %q in\n%s", want, &log)
	}
	u := progress.Update{Phase: "block 2 of 4", Done: 30, Total: 80, Unit: "sequences", PartDone: 10, PartTotal: 20}
	if got, want := plainLine(u, 3*time.Second), "block 2 of 4: 10 of 20 sequences, 10 sequences/s, 5s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	u = progress.Update{Phase: "fetch x.json", Done: 2e6, Total: -1, Unit: "bytes", PartDone: 2e6, PartTotal: -1}
	if got, want := plainLine(u, 2*time.Second), "fetch x.json: 2 MB, 1 MB/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	u = progress.Update{Phase: "hash", Done: 2e6, Total: 4e6, Unit: "bytes", PartDone: 2e6, PartTotal: 4e6}
	if got, want := plainLine(u, 2*time.Second), "hash: 2 MB of 4 MB, 1 MB/s, 2s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

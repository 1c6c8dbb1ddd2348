package pho

import (
	"fmt"

	"github.com/crepe-llm/crepe/windows"
)

// sharedRun is how many tokens in a row make two windows overlap.
const sharedRun = 32

// HeldOut splits windows that were drawn together: the first samples calibrate,
// and of the others the first want that share no run of 32 tokens with them
// verify. At least MinVerify must remain.
func HeldOut(all *windows.Set, samples, want int) (calibrate, verify *windows.Set, err error) {
	part := func(source string, tokens [][]int32) *windows.Set {
		return &windows.Set{Source: source, Tokens: tokens, SeqLen: all.SeqLen, BOS: all.BOS}
	}
	if len(all.Tokens) < samples {
		samples = len(all.Tokens)
	}
	seen := map[uint64]bool{}
	for _, w := range all.Tokens[:samples] {
		eachRun(w, func(hash uint64) bool { seen[hash] = true; return true })
	}
	var free [][]int32
	for _, w := range all.Tokens[samples:] {
		apart := true
		eachRun(w, func(hash uint64) bool { apart = !seen[hash]; return apart })
		if apart && len(free) < want {
			free = append(free, w)
		}
	}
	if len(free) < MinVerify {
		return nil, nil, fmt.Errorf("%s: %d of %d further windows share no text with the calibration sequences, want at least %d: choose another text with --verify",
			all.Source, len(free), len(all.Tokens)-samples, MinVerify)
	}
	return part(all.Source, all.Tokens[:samples]), part(all.Source+" (held out)", free), nil
}

// eachRun calls f with a hash of every run of sharedRun tokens, as long as it
// returns true. The hash is a polynomial modulo 2⁶⁴.
func eachRun(w []int32, f func(hash uint64) bool) {
	const factor = 0x9e3779b97f4a7c15
	drop := uint64(1)
	for range sharedRun {
		drop *= factor
	}
	h := uint64(0)
	for t, id := range w {
		h = h*factor + uint64(id) + 1
		if t >= sharedRun {
			h -= drop * (uint64(w[t-sharedRun]) + 1)
		}
		if t >= sharedRun-1 && !f(h) {
			return
		}
	}
}

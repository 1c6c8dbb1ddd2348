package main

import (
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// FuzzBytes: a size that is taken is one, and prints as one that is taken.
func FuzzBytes(f *testing.F) {
	for _, s := range []string{"16GiB", "500MB", "1e9", "16", "-1GB", "NaNB", "0x1p20", "9e18", "1TiBB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b bytesFlag
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(s)), func() { err = b.Set(s) })
		if err != nil {
			return
		}
		if b < 1 {
			t.Errorf("%q is %d bytes", s, b)
		}
		if err := new(bytesFlag).Set(b.String()); err != nil {
			t.Errorf("%q prints as %s: %v", s, &b, err)
		}
	})
}

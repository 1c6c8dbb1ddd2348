package prune

import (
	"errors"
	"slices"
	"testing"
)

// Work is done in order, one after the other, and none after the first that fails.
func TestBesideWorkers(t *testing.T) {
	var b beside
	if err := b.wait(); err != nil {
		t.Errorf("without work: %v", err)
	}
	failed := errors.New("failed")
	for _, fails := range []int{-1, 3} {
		var got, want []int
		for i := range 10 {
			b.do(func() error {
				got = append(got, i)
				if i == fails {
					return failed
				}
				return nil
			})
			if fails < 0 || i <= fails {
				want = append(want, i)
			}
		}
		if err := b.wait(); !slices.Equal(got, want) || (err == failed) != (fails >= 0) {
			t.Errorf("%v was done, %v, want %v", got, err, want)
		}
	}
}

package prune

import (
	"fmt"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// selected is what was selected of a Linear, or of a part of it.
type selected struct {
	part  model.Part
	kept  *mask.Mask // nil: an update selected
	order []int      // in which it did; nil: the columns as they are
}

// verify holds w, which is about to be written, to what was selected of it: a mask
// prunes exactly as many weights as t asks for, of every group of N:M, every row or
// the whole, and all these are zero in w. An update that selects leaves no mask:
// the zeros of w themselves are held to t.
func verify(w *tensor.Weight, parts []selected, t pattern.Target) error {
	for _, s := range parts {
		written := mask.NonZero(s.part.Take(w))
		if s.kept == nil {
			written.Order = s.order
			if err := written.Verify(t, mask.AtLeast); err != nil {
				return inPart(s.part, fmt.Errorf("zeros: %w", err))
			}
			continue
		}
		if err := s.kept.Verify(t, mask.Exactly); err != nil {
			return inPart(s.part, fmt.Errorf("mask: %w", err))
		}
		if i, j, extra := written.Extra(s.kept); extra {
			return inPart(s.part, fmt.Errorf("weight [%d, %d] is not zero, but its mask prunes it", i, j))
		}
	}
	return nil
}

// hashOutput returns the SHA-256 of config and weights as they have been written:
// what crepe verify finds a changed weight by without the dense model.
func (r *runner) hashOutput() (map[string]string, error) {
	inv, err := checkpoint.Open(r.w.Folder())
	if err != nil {
		return nil, err
	}
	defer inv.Close() // an open file would stop Commit on Windows
	bar := r.opt.Progress.Start("hash the output", inv.WeightBytes(), "bytes")
	return inv.Hashes(func(done, _ int64) { bar.Set(done) })
}

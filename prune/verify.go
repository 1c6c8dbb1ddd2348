package prune

import (
	"fmt"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/tensor"
)

// verify holds w, which is about to be written, to what was selected of it: a mask
// prunes exactly as many weights as the target asks for, of every group of N:M, every
// row or the whole, and all these are zero in w. An update that selects leaves no
// mask: the zeros of w themselves are held to the target.
func verify(w *tensor.Weight, matrices []*job) error {
	for _, j := range matrices {
		written := mask.NonZero(j.part.Take(w))
		if j.kept == nil {
			written.Order = j.order
			if err := written.Verify(j.target, mask.AtLeast); err != nil {
				return inPart(j.part, fmt.Errorf("zeros: %w", err))
			}
			continue
		}
		if err := j.kept.Verify(j.target, mask.Exactly); err != nil {
			return inPart(j.part, fmt.Errorf("mask: %w", err))
		}
		if i, k, extra := written.Extra(j.kept); extra {
			return inPart(j.part, fmt.Errorf("weight [%d, %d] is not zero, but its mask prunes it", i, k))
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
	return inv.Hashes(r.opt.Progress.Bytes("hash the output"))
}

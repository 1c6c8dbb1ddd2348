package prune

import (
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

// Masks are a pruned model that was not written: by Linear, the masks of its
// parts, row after row. A Linear that is left dense has none. They take a bit
// a weight.
type Masks map[string][]*mask.Mask

// maskSink keeps the masks of what is pruned in memory, and hands each pruned block
// on.
type maskSink struct {
	masks Masks
	each  func(block *model.Block) error
}

func (k *maskSink) linear(l *model.Linear, _ *tensor.Weight, matrices []*job) error {
	for _, j := range matrices {
		k.masks[l.Name] = append(k.masks[l.Name], j.kept)
	}
	return nil
}

func (k *maskSink) settle() error { return nil }

func (k *maskSink) block(_ int, block *model.Block, _ []LinearReport) error { return k.each(block) }

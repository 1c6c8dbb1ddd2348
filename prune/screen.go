package prune

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
)

// screenShare and minScreen say how many sequences screen: that share of those
// that calibrate, but not fewer.
const (
	screenShare = 32
	minScreen   = 4
)

// Reference holds a pruning by one recipe with its calibration statistics, by which
// other recipes are screened.
type Reference struct {
	m        *InMemory
	few      [][]int32        // the sequences that screen
	all, now [][]*stats.Input // by block after the first, and input: of all sequences, and of few
}

// Reference is Prune by rec, and keeps the statistics of every input. rec must need
// no more of an input than its norms.
func (m *InMemory) Reference(ctx context.Context, name string, rec recipe.Recipe, each func(block *model.Block) error) (*Reference, Masks, error) {
	n := min(max(len(m.text.Tokens)/screenShare, minScreen), len(m.text.Tokens))
	ref := &Reference{
		m: m, few: m.text.Tokens[:n],
		all: make([][]*stats.Input, m.m.Blocks()), now: make([][]*stats.Input, m.m.Blocks()),
	}
	masks, err := m.prune(ctx, name, rec, m.text.Tokens, ref.record, each)
	if err != nil {
		return nil, nil, err
	}
	return ref, masks, nil
}

// ReferenceBytes returns what a Reference of m holds.
func ReferenceBytes(m *model.Model) int64 {
	const two, size = 2, 8 // of all sequences and of few, float64
	n := int64(0)
	for b := range m.Blocks() {
		linears := m.Linears(b)
		for i, l := range linears {
			if i == 0 || linears[i-1].Input != l.Input {
				n += two * size * int64(l.Cols)
			}
		}
	}
	return n
}

// Screen prunes by rec nearly as Prune does, at a fraction of the cost: few of the
// sequences are run, and the norm of an input's channel is
//
//	‖X_j‖² ≈ ‖X_j‖²_ref · ‖X_j‖²_few / ‖X_j‖²_ref,few
//
// where ref is the reference's on all sequences, few is rec's and ref,few is the
// reference's on those few: a ratio estimate (Cochran, Sampling Techniques, chapter
// 6). A sequence's activations after two pruned prefixes are similar, so the ratio
// varies far less between sequences than the norms. What enters block 0 is the
// reference's, exactly. An expert's input of fewer than MinTokens tokens is the
// reference's too, since routing decides which those are.
func (ref *Reference) Screen(ctx context.Context, name string, rec recipe.Recipe, each func(block *model.Block) error) (Masks, error) {
	return ref.m.prune(ctx, name, rec, ref.few, ref.estimate, each)
}

// normsOnly refuses a recipe that reads more of block's inputs.
func normsOnly(p *Plan, block *model.Block) error {
	for _, in := range block.Inputs() {
		if p.needs(in) != (stats.Needs{}) {
			return fmt.Errorf("input of %s: the recipe reads more of it than norms: nothing can be screened by that", in.Name)
		}
	}
	return nil
}

// record is the observer of Reference.
func (ref *Reference) record(ctx context.Context, p *pruner, b int, block *model.Block) (seen, error) {
	if err := normsOnly(p.plan, block); err != nil {
		return nil, err
	}
	if b == 0 {
		return ref.m.observe(ctx, p, b, block)
	}
	p.phase(b, "calibrate")
	g := gather(p.m.Engine(), block.Inputs(), norms)
	now, err := p.some(ctx, block, g, 0, len(ref.few))
	if err != nil {
		return nil, err
	}
	all, err := p.some(ctx, block, g, len(ref.few), p.sequences())
	if err != nil {
		return nil, err
	}
	ref.all[b], ref.now[b] = all.list(block), now.list(block)
	return all, nil
}

// estimate is the observer of Screen.
func (ref *Reference) estimate(ctx context.Context, p *pruner, b int, block *model.Block) (seen, error) {
	if err := normsOnly(p.plan, block); err != nil {
		return nil, err
	}
	if b == 0 {
		return ref.m.observe(ctx, p, b, block) // which has what the reference saw
	}
	few, err := p.watch(ctx, b, block, norms)
	if err != nil {
		return nil, err
	}
	s := seen{}
	for i, in := range block.Inputs() {
		all, was, is := ref.all[b][i], ref.now[b][i], few[in]
		if tooFewTokens(in.Linears[0], was) || tooFewTokens(in.Linears[0], is) {
			s[in] = all
		} else {
			s[in] = ratio(all, was, is)
		}
	}
	return s, nil
}

// ratio returns all · is / was, channel by channel; all where was is 0.
func ratio(all, was, is *stats.Input) *stats.Input {
	out := &stats.Input{ColSq: make([]float64, len(all.ColSq)), Sequences: all.Sequences, Tokens: all.Tokens}
	for j, v := range all.ColSq {
		out.ColSq[j] = v
		if was.ColSq[j] > 0 {
			out.ColSq[j] *= is.ColSq[j] / was.ColSq[j]
		}
	}
	return out
}

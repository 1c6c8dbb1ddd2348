package prune

import (
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/rebuild"
	"github.com/crepe-llm/crepe/stats"
)

// needs returns what the steps read of in besides its norms.
func (p *Plan) needs(in *model.Input) stats.Needs {
	var all stats.Needs
	for _, l := range in.Linears {
		if !p.skip[l.Name] {
			all = all.Union(p.needsAt(l.Attention))
		}
	}
	return all
}

// needsAt returns what the steps read of the input of a Linear that is of the
// attention or not.
func (p *Plan) needsAt(attention bool) stats.Needs {
	var all stats.Needs
	for _, s := range p.steps {
		if s.on(attention) {
			all = all.Union(s.needs)
		}
	}
	return all
}

// addMatrices adds to p what the matrices of l take one at a time, and returns how
// many of its weights will be zero.
func (p *Plan) addMatrices(l model.LinearSpec) (pruned int, err error) {
	for _, part := range matrices(p.resolved, l.Parts, l.Rows) {
		n, err := p.resolved.Target.Pruned(part.Rows(), l.Cols)
		if err != nil {
			return 0, err
		}
		pruned += n
		p.Memory.Scores = max(p.Memory.Scores, p.workBytes(l.Attention, part.Rows(), l.Cols))
	}
	if a := p.resolved.Allocate; a != nil && a.WeightCost != nil {
		bytes, flop := a.WeightCost(l.Rows, l.Cols)
		p.Memory.Scores = max(p.Memory.Scores, bytes)
		p.FLOP64 += flop
	}
	return pruned, nil
}

// workBytes returns what the steps hold of a matrix at most.
func (p *Plan) workBytes(attention bool, rows, cols int) int64 {
	kept, most := int64(0), int64(0)
	for _, s := range p.steps {
		if s.on(attention) {
			c := s.costOf(rows, cols)
			kept += c.kept
			most = max(most, kept+c.brief)
		}
	}
	return most
}

// inputs returns those Linears of a block that are pruned, by input.
func (p *Plan) inputs(linears []model.LinearSpec) [][]model.LinearSpec {
	var inputs [][]model.LinearSpec
	last := -1
	for _, l := range linears {
		if p.skip[l.Name] {
			continue
		}
		if l.Input != last {
			inputs, last = append(inputs, nil), l.Input
		}
		inputs[len(inputs)-1] = append(inputs[len(inputs)-1], l)
	}
	return inputs
}

// statsBytes returns what the Gram matrices of a block and what is made of them take
// at most. Where Linears are pruned in order, only those of one input are there, or
// those of a branch's experts.
func (p *Plan) statsBytes(inputs [][]model.LinearSpec) int64 {
	if !p.resolved.InOrder() {
		return p.gramBytes(inputs)
	}
	most := int64(0)
	for len(inputs) > 0 {
		n := 1
		for n < len(inputs) && inputs[0][0].Expert && inputs[n][0].Expert {
			n++
		}
		cross := int64(0)
		if l := inputs[0][0]; p.resolved.Fit.Dense && !l.Expert {
			rows := max(l.Cols, l.Rows)
			cross = stats.CrossBytes(rows, l.Cols) + p.statsScratch(l.Cols, stats.Needs{Cross: rows})
		}
		most = max(most, p.gramBytes(inputs[:n])+cross)
		inputs = inputs[n:]
	}
	return most
}

// fitScratch returns what the fit of a branch's last Linear takes beside the pass of
// a sequence: what enters it, what leaves the branch, and the same in the dense model.
func (p *Plan) fitScratch(tokens, width int) int64 {
	widest := width
	for _, l := range p.Linears {
		widest = max(widest, l.Cols)
	}
	return 4 * int64(tokens) * int64(width+2*widest)
}

// rebuildBytes returns what rebuilding holds of the weights of a block's largest
// branch: in float32 the master weights twice, the best ones, the gradient twice and
// Adam's moments; the result beside what it replaces.
func (p *Plan) rebuildBytes(inputs [][]model.LinearSpec) int64 {
	if p.resolved.Rebuild == nil {
		return 0
	}
	sum := map[bool]int64{} // attention or not
	for _, in := range inputs {
		for _, l := range in {
			n := int64(l.Rows) * int64(l.Cols)
			sum[l.Attention] += 5*4*n + rebuild.Bytes(n) + int64(l.DType.Size())*n
		}
	}
	return max(sum[true], sum[false])
}

// rebuildScratch returns about what the forward and backward pass of a sequence through
// a branch take: some ten activations of its widest Linear, and their transposes.
func (p *Plan) rebuildScratch(tokens, width int) int64 {
	widest := width
	for _, l := range p.Linears {
		widest = max(widest, l.Rows, l.Cols)
	}
	return 4 * int64(tokens) * int64(6*width+10*widest)
}

// gramBytes returns what the Gram matrices of a block and what is made of them take
// at most. All of them are gathered in one pass. Then the inputs are at work one
// after the other, and each releases its own.
func (p *Plan) gramBytes(inputs [][]model.LinearSpec) int64 {
	later, most, scratch := int64(0), int64(0), int64(0)
	for i := len(inputs) - 1; i >= 0; i-- {
		in := inputs[i]
		alone := len(in) == 1 && len(matrices(p.resolved, in[0].Parts, in[0].Rows)) == 1
		for _, l := range in {
			most = max(most, later+p.inputBytes(l, alone))
		}
		if first := in[0]; p.needsAt(first.Attention).Gram {
			scratch = max(scratch, p.statsScratch(first.Cols, stats.Needs{Gram: true}))
			later += stats.GramBytes(first.Cols)
		}
	}
	return max(most, later+scratch)
}

// statsScratch returns what adding to a statistic takes of the program's memory.
func (p *Plan) statsScratch(in int, needs stats.Needs) int64 {
	if _, separate := p.engine.(engine.Own); separate {
		return 0
	}
	return p.engine.StatsScratch(in, needs)
}

// inputBytes returns what the Gram matrix of l's input, and what is made of it, take
// while l is at work. What a step has made stays for other matrices of the input,
// unless the only one is alone; the Gram matrix itself stays to the last step that
// reads it, if that makes something of it once for all.
func (p *Plan) inputBytes(l model.LinearSpec, alone bool) int64 {
	gram, last := int64(0), -1
	for i, s := range p.steps {
		if s.on(l.Attention) && s.needs.Gram {
			gram, last = stats.GramBytes(l.Cols), i
		}
	}
	held, most := int64(0), int64(0)
	for i, s := range p.steps {
		if !s.on(l.Attention) {
			continue
		}
		c := s.costOf(l.Rows, l.Cols)
		most = max(most, gram+held+c.shared)
		if i == last && s.share != nil {
			gram = 0
		}
		most = max(most, gram+held+c.held+c.run)
		if !alone {
			held += c.held
		}
	}
	return most
}

// momentsBytes returns what the moments of a block's inputs take.
func (p *Plan) momentsBytes(inputs [][]model.LinearSpec) int64 {
	sum := int64(0)
	for _, in := range inputs {
		if p.needsAt(in[0].Attention).Moments {
			sum += stats.MomentsBytes(in[0].Cols)
		}
	}
	return sum
}

// gramFLOP returns the operations of the Gram matrices of a block's inputs, of
// which half is computed, and of the steps that read them.
func (p *Plan) gramFLOP(inputs [][]model.LinearSpec, tokens float64) float64 {
	sum := 0.0
	for _, in := range inputs {
		first := in[0]
		if p.needsAt(first.Attention).Gram {
			sum += first.Share * tokens * float64(first.Cols) * float64(first.Cols)
		}
		for i, l := range in {
			for _, s := range p.steps {
				if !s.on(l.Attention) {
					continue
				}
				c := s.costOf(l.Rows, l.Cols)
				sum += c.flop
				if i == 0 {
					sum += c.sharedFLOP
				}
			}
		}
	}
	return sum
}

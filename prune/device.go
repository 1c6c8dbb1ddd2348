package prune

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/stats"
)

// DeviceMemory is what a run will hold at its peak of the memory that an engine has of
// its own, in bytes.
type DeviceMemory struct {
	Block   int64 `json:"block"`   // the weights of Memory.Block, and of a Linear at work a copy and scores
	Ahead   int64 `json:"ahead"`   // of Memory.Ahead
	Stats   int64 `json:"stats"`   // of a block's inputs: Gram matrices, and the products that are added to them
	Scratch int64 `json:"scratch"` // activations of one sequence, the head's part
	Hidden  int64 `json:"hidden"`  // hidden states between blocks: all, or where there is no room those of a sequence
	Budget  int64 `json:"budget"`
}

// Total returns the peak.
func (d *DeviceMemory) Total() int64 { return d.fixed() + d.Ahead + d.Hidden }

// fixed is what no budget can do without.
func (d *DeviceMemory) fixed() int64 { return d.Block + d.Stats + d.Scratch }

func (d *DeviceMemory) check() error {
	if least := d.Total(); least > d.Budget {
		return fmt.Errorf("device %w: %d MiB, want at least %d MiB (block %d, statistics %d, activations %d)",
			ErrMemory, d.Budget>>20, (least+1<<20-1)>>20, d.Block>>20, d.Stats>>20, (d.Scratch+d.Hidden)>>20)
	}
	return nil
}

// countDevice moves to p.Memory.Device what lies in an engine's own memory, if it has one;
// tokens is the longest sequence, one what its hidden states take in all streams.
func (p *Plan) countDevice(m *model.Model, tokens int, one int64) {
	budget, separate := engine.OwnMemory(p.engine)
	if !separate {
		return
	}
	d := &DeviceMemory{Scratch: m.OwnBytes(tokens) + p.Memory.Scratch - m.ScratchBytes(tokens), Hidden: one, Budget: budget}
	const scoreBytes = 4
	copied := int64(0)
	for b := range m.Blocks() {
		linears := m.Linears(b)
		d.Stats = max(d.Stats, p.deviceStats(p.inputs(linears)))
		for _, l := range linears {
			copied = max(copied, int64(l.DType.Size()+scoreBytes)*int64(l.Rows)*int64(l.Cols))
		}
	}
	if r := p.rotation; r != nil {
		needs := stats.Needs{Gram: true}
		heads := m.Config.Heads * m.Config.HeadDim
		d.Stats = max(d.Stats, stats.GramBytes(m.Width())+stats.GramBytes(heads)+p.engine.StatsScratch(max(m.Width(), heads), needs))
	}
	d.Block = copied // the block's own weights are added when the budgets are known
	p.Memory.Device, p.Memory.Scratch = d, one
}

// deviceStats returns what the statistics of a block's inputs take in the engine's memory
// while they are gathered.
func (p *Plan) deviceStats(inputs [][]model.LinearSpec) int64 {
	sum, most, scratch := int64(0), int64(0), int64(0)
	for _, in := range inputs {
		l := in[0]
		needs := p.needsAt(l.Attention)
		n := 8 * int64(l.Cols)
		if needs.Moments {
			n += stats.MomentsBytes(l.Cols)
		}
		if needs.Gram {
			n += stats.GramBytes(l.Cols)
			if p.resolved.Fit.Dense && !l.Expert {
				needs.Cross = max(l.Rows, l.Cols)
				n += stats.CrossBytes(needs.Cross, l.Cols)
			}
		}
		sum, most = sum+n, max(most, n)
		scratch = max(scratch, p.engine.StatsScratch(l.Cols, needs))
	}
	if p.resolved.InOrder() && len(inputs) > 0 && !inputs[len(inputs)-1][0].Expert {
		sum = most // one input after the other
	}
	return sum + scratch
}

// settleDevice decides where the hidden states are once the program's memory is known.
func (p *Plan) settleDevice() {
	d := p.Memory.Device
	if d == nil {
		return
	}
	d.Block += p.Memory.Block
	if d.fixed()+p.Memory.Hidden <= d.Budget {
		d.Hidden, p.Memory.Hidden = p.Memory.Hidden, 0
	}
}

// place returns where the plan keeps hidden states, if a file would lie in dir.
func (m Memory) place(dir string) engine.Place {
	switch {
	case m.Spill:
		return engine.Place{Dir: dir}
	case m.Device != nil && m.Hidden > 0:
		return engine.Place{Host: true}
	}
	return engine.Place{}
}

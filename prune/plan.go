package prune

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/rotate/rotated"
)

// Plan is what a run will do and take, known before any weight is read.
type Plan struct {
	Linears []LinearPlan `json:"linears"`
	Memory  Memory       `json:"memory"`
	Disk    Disk         `json:"disk"`
	FLOP    float64      `json:"flop"`             // of the matrix products of calibration and evaluation
	FLOP32  float64      `json:"flop32,omitempty"` // of Gram matrices and updates, always in float32
	FLOP64  float64      `json:"flop64,omitempty"` // of singular values, in float64

	resolved recipe.Resolved
	steps    []step // of every matrix
	engine   engine.Engine
	files    *checkpoint.Plan
	rotation *rotated.Plan   // nil: nothing is rotated
	skip     map[string]bool // by Linear: left dense
	absent   []string        // kinds of the recipe that no Linear is of
}

// LinearPlan is one prunable Linear of the model.
type LinearPlan struct {
	Name   string `json:"name"`
	Rows   int    `json:"rows"`
	Cols   int    `json:"cols"`
	Pruned int    `json:"pruned"` // weights that will be zero
	Skip   bool   `json:"skip,omitempty"`

	share float64 // of the tokens that enter it
}

// Memory is what the run will hold at its peak, in bytes; of an engine that has memory of
// its own, what lies there is in Device.
type Memory struct {
	Block   int64 `json:"block"`   // the largest block's weights, those in memory at once; for a fit to the dense model, twice
	Ahead   int64 `json:"ahead"`   // the next block's, which is read while one is at work; 0: it is not
	Experts int64 `json:"experts"` // what a block's experts are held to; 0: all are in memory
	Scores  int64 `json:"scores"`  // of the largest Linear, with its mask
	Gram    int64 `json:"gram"`    // of a block's inputs, and what refinement and update of the largest hold; 0: nothing needs them
	Rotate  int64 `json:"rotate"`  // what finding and doing a rotation holds, not at the same time as what follows; 0: nothing is rotated
	Rebuild int64 `json:"rebuild"` // what rebuilding a branch holds of it, not at the same time as Gram and Refine; 0: nothing is rebuilt
	Refine  int64 `json:"refine"`  // what a refinement of the mask gathers of a block's inputs and works in
	Samples int64 `json:"samples"` // tokens that enter a block's Linears, to measure their outputs' errors
	Measure int64 `json:"measure"` // outputs of the widest Linear for these
	Scratch int64 `json:"scratch"` // activations of one sequence, the head's part, the program
	Hidden  int64 `json:"hidden"`  // hidden states between blocks, for a fit to the dense model also its own; 0: the device has them
	Spill   bool  `json:"spill"`   // they are kept in a file beside the output
	Budget  int64 `json:"budget"`

	Device *DeviceMemory `json:"device,omitempty"` // nil: the engine has no memory of its own
}

// Total returns the peak.
func (m Memory) Total() int64 {
	n := m.fixed() + m.Ahead
	if !m.Spill {
		n += m.Hidden
	}
	return n
}

// fixed is what no budget can do without: scores and a sequence's activations
// are not held at the same time.
func (m Memory) fixed() int64 {
	return m.Block + max(m.Gram+m.Refine, m.Rebuild, m.Rotate) + m.Samples + max(m.Scores+m.Measure, m.Scratch) + programBytes
}

// programBytes is the program itself: code, packed panels, buffers of files.
const programBytes = 96 << 20

// Disk is what the run writes, in bytes.
type Disk struct {
	Output int64 `json:"output"`
	Extra  int64 `json:"extra"` // while it runs: hidden states in files, and their copies to resume from

	// Packed bounds what a packed output takes, zero if it is plain. Output is then the
	// plain one's, which is there until the end.
	Packed int64 `json:"packed,omitempty"`
}

// LeftOut lists what is in the input's folder and will not be in the output's.
func (p *Plan) LeftOut() []checkpoint.LeftOut { return p.files.LeftOut }

// Absent lists the kinds that the recipe has parameters for and the model no Linear of.
func (p *Plan) Absent() []string { return p.absent }

// MakePlan looks at headers only. It refuses what cannot be done: a pattern
// that does not divide a Linear's columns, a budget below the least.
func MakePlan(inv *checkpoint.Inventory, m *model.Model, opt Options) (*Plan, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	resolved, err := opt.Recipe.Resolve()
	if err != nil {
		return nil, err
	}
	m = m.Plain()
	if resolved.Rebuild != nil {
		if err := m.CheckTrainable(); err != nil {
			return nil, fmt.Errorf("rebuild %s: %w", resolved.Rebuild.Name, err)
		}
	}
	p, err := planLinears(m, resolved)
	if err != nil {
		return nil, err
	}
	if p.files, err = checkpoint.NewPlan(inv, 0); err != nil {
		return nil, err
	}
	if err := p.planRotation(inv, m, opt); err != nil {
		return nil, err
	}
	p.count(m, opt)
	if err := p.planPacking(inv, opt); err != nil {
		return nil, err
	}
	return p, p.Memory.check()
}

// planLinears plans the work on the Linears of m, but for its texts.
func planLinears(m *model.Model, r recipe.Resolved) (*Plan, error) {
	p := &Plan{resolved: r, steps: stepsOf(r), engine: m.Engine(), skip: map[string]bool{}}
	todo, skipped := 0, 0
	kinds := map[string]bool{}
	for b := range m.Blocks() {
		for _, l := range m.Linears(b) {
			pl := LinearPlan{Name: l.Name, Rows: l.Rows, Cols: l.Cols, share: l.Share}
			named := r.Skips(l.Name)
			switch pl.Skip = l.Gate || named; {
			case !pl.Skip:
				var err error
				if pl.Pruned, err = p.addMatrices(l); err != nil {
					return nil, fmt.Errorf("%s: %w", l.Name, err)
				}
				todo++
				kinds[recipe.Kind(l.Name)] = true
			case !l.Gate:
				skipped++
			}
			p.Linears = append(p.Linears, pl)
			p.skip[pl.Name] = pl.Skip
		}
		inputs := p.inputs(m.Linears(b))
		p.Memory.Rebuild = max(p.Memory.Rebuild, p.rebuildBytes(inputs))
		p.Memory.Gram = max(p.Memory.Gram, p.statsBytes(inputs))
		p.Memory.Refine = max(p.Memory.Refine, p.momentsBytes(inputs))
	}
	_, p.Memory.Block = p.fitBlocks(m, math.MaxInt64)
	if err := p.checkKinds(kinds); err != nil {
		return nil, err
	}
	switch {
	case r.Skip != nil && skipped == 0:
		return nil, fmt.Errorf("skip: %q matches no Linear that is pruned; there are %s and %d more", r.Skip, p.Linears[0].Name, len(p.Linears)-1)
	case todo > 0:
		return p, nil
	case r.Skip == nil:
		return nil, errors.New("the model has no Linear to prune")
	}
	return nil, fmt.Errorf("skip: %q leaves no Linear to prune", r.Skip)
}

// fitBlocks is model.FitBlocks for the blocks that are in memory at a time: one, or,
// for a fit to the dense model, its own beside it.
func (p *Plan) fitBlocks(m *model.Model, room int64) (expertBytes, blocks int64) {
	if !p.resolved.Dense() {
		return m.FitBlocks(room)
	}
	expertBytes, blocks = m.FitBlocks(room / 2)
	return expertBytes, 2 * blocks
}

// checkKinds compares the kinds of the recipe with those that are pruned. Some may be
// missing, as where the recipe is another model's, but not all.
func (p *Plan) checkKinds(pruned map[string]bool) error {
	for _, kind := range slices.Sorted(maps.Keys(p.resolved.Kinds)) {
		if !pruned[kind] {
			p.absent = append(p.absent, kind)
		}
	}
	if len(p.absent) > 0 && len(p.absent) == len(p.resolved.Kinds) {
		return fmt.Errorf("kinds: %s: no such Linear is pruned, want some of %s", strings.Join(p.absent, ", "), strings.Join(slices.Sorted(maps.Keys(pruned)), ", "))
	}
	return nil
}

// matrices returns what of a Linear's rows is scored and selected by
// themselves: all of them as one, unless the recipe splits what is fused.
func matrices(r recipe.Resolved, parts []model.Part, rows int) []model.Part {
	if r.Split && len(parts) > 0 {
		return parts
	}
	return []model.Part{{Hi: rows}}
}

// count fills in memory, disk and work.
func (p *Plan) count(m *model.Model, opt Options) {
	width := m.Width()
	weights := 0.0 // that a token meets in all Linears
	for _, l := range p.Linears {
		weights += l.share * float64(l.Rows) * float64(l.Cols)
	}
	head := float64(width) * float64(m.Config.Vocab)
	tokens := opt.tokens()
	longest, one := 0, int64(0) // sequence, and what its hidden states take
	use := func(sequences, tokens int, streams int64, flopPerToken float64) {
		p.Memory.Hidden = max(p.Memory.Hidden, streams*hidden.Bytes(sequences, tokens, width))
		longest, one = max(longest, tokens), max(one, streams*hidden.Bytes(1, tokens, width))
		p.Memory.Scratch = max(p.Memory.Scratch, m.ScratchBytes(tokens))
		p.FLOP += float64(sequences) * float64(tokens) * flopPerToken
	}
	reads := opt.Calibration != nil && p.resolved.Method.NeedsData
	if c := opt.Calibration; reads {
		passes, streams := 0.0, int64(1)
		if p.resolved.Observes {
			passes += 2 // dense and pruned
		}
		if p.resolved.Dense() {
			passes++ // of the dense stream
			streams = 2
		}
		if a := p.resolved.Allocate; a != nil && a.NeedsData() {
			passes++
		}
		use(len(c.Tokens), c.SeqLen, streams, passes*2*weights)
		if p.resolved.Rebuild != nil {
			const passes = 3 // forward, and backward by inputs and by weights
			epochs := float64(p.resolved.Params.Whole("rebuild_epochs"))
			p.FLOP32 += (passes*epochs + 2) * 2 * weights * float64(tokens)
			p.Memory.Rebuild += p.rebuildScratch(c.SeqLen, width)
		}
		if p.resolved.InOrder() {
			p.Memory.Scratch += p.fitScratch(c.SeqLen, width)
		}
	}
	for b := range m.Blocks() {
		inputs := p.inputs(m.Linears(b))
		if reads {
			p.FLOP32 += p.gramFLOP(inputs, float64(tokens))
		}
		samples, work := p.measureBytes(inputs, tokens)
		p.Memory.Samples, p.Memory.Measure = max(p.Memory.Samples, samples), max(p.Memory.Measure, work)
	}
	kept := int64(0) // of the dense model, to compare with
	if e := opt.Evaluation; e != nil {
		use(len(e.Tokens), e.SeqLen, 1, 2*2*(weights+head))
		n := len(firstWindows(e.Tokens))
		kept = hidden.Bytes(n, e.SeqLen, width)
		p.Memory.Hidden = max(p.Memory.Hidden, hidden.Bytes(len(e.Tokens), e.SeqLen, width)+kept)
		one = max(one, 2*hidden.Bytes(1, e.SeqLen, width))
		p.FLOP += float64(n) * float64(e.SeqLen) * 2 * 2 * head
	}
	if r := p.rotation; r != nil {
		p.FLOP, p.FLOP32, p.Memory.Rotate = p.FLOP+r.FLOP, p.FLOP32+r.FLOP32, r.Bytes
	}
	p.Memory.Budget = opt.Memory
	if p.Memory.Budget == 0 {
		p.Memory.Budget = sysinfo.Budget()
	}
	p.countDevice(m, longest, one)
	room := int64(math.MaxInt64) // for blocks
	if p.Memory.Budget > 0 {
		room = p.Memory.Budget - (p.Memory.fixed() - p.Memory.Block)
	}
	if d := p.Memory.Device; d != nil {
		room = min(room, d.Budget-d.Total())
	}
	p.Memory.Experts, p.Memory.Block = p.fitBlocks(m, room)
	states := p.Memory.Hidden
	p.settleDevice()
	p.Memory.Spill = p.Memory.Budget > 0 && p.Memory.fixed()+p.Memory.Hidden > p.Memory.Budget
	p.planAhead(m)
	p.Disk.Output = p.files.Bytes()
	if states > 0 {
		p.Disk.Extra = 2 * states // a copy to resume from, and the next while it is written
		if p.Memory.Spill {
			p.Disk.Extra += p.Memory.Hidden
		}
	}
	p.Disk.Extra += kept
	if r := p.rotation; r != nil { // the dense model, rotated
		p.Disk.Output = r.Files.Bytes()
		p.Disk.Extra += r.Files.Bytes()
	}
}

// planAhead has the next block read while one is at work, if there is room for both.
func (p *Plan) planAhead(m *model.Model) {
	_, block := m.FitBlocks(math.MaxInt64)
	d, fits := p.Memory.Device, p.Memory.Budget == 0 || p.Memory.Total()+block <= p.Memory.Budget
	if p.Memory.Experts > 0 || !fits || d != nil && d.Total()+block > d.Budget {
		return
	}
	p.Memory.Ahead = block
	if d != nil {
		d.Ahead = block
	}
}

// keeps reports whether there is room for so many bytes of heads when the blocks are done.
func (m Memory) keeps(heads int64) bool {
	fits := m.Budget == 0 || m.Total()-m.Block-m.Ahead+heads <= m.Budget
	if d := m.Device; d != nil {
		fits = fits && d.Total()-d.Block-d.Ahead+heads <= d.Budget
	}
	return fits
}

// ErrMemory marks a budget that no order of work can meet.
var ErrMemory = errors.New("memory budget too small")

func (m Memory) check() error {
	if least := m.fixed(); m.Budget > 0 && least > m.Budget {
		return fmt.Errorf("%w: %d MiB, want at least %d MiB (block %d, Gram matrices %d, refinement %d, scores %d, measures %d, activations %d)",
			ErrMemory, m.Budget>>20, (least+1<<20-1)>>20, m.Block>>20, m.Gram>>20, m.Refine>>20, m.Scores>>20, (m.Samples+m.Measure)>>20, m.Scratch>>20)
	}
	if m.Device != nil {
		return m.Device.check()
	}
	return nil
}

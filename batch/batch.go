// Package batch continues many texts with one model at a time: the next tokens
// of all of them pass through a block together, so that its weights are read once
// for all.
//
// Texts come and go at any step (continuous batching). A prompt is read in
// chunks, beside the others' tokens. What a prompt has in common with an earlier
// text is not computed again: the two share its keys and values. They are
// bfloat16 where the engine computes so, else float32.
package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/tensor"
)

// Options of a Runner. The zero value is the documented default of each.
type Options struct {
	Texts int // that are continued at a time; 0: 16
	Queue int // requests that may wait for a place; 0: 64
	Chunk int // tokens of prompts that a step takes in at most; 0: 128

	// CacheBytes bounds the keys and values of all texts, and of those that are
	// kept for prompts to come. 0: what Texts of the model's longest take.
	CacheBytes int64

	// Exact makes a text the same, bit for bit, whatever is continued beside it and
	// whatever it shares: steps of few tokens are filled up to as many as the
	// engine's products take not to change with their number, which costs time. Else
	// the last bits of logits depend on that, and a token whose logit is as good as
	// another's may come out otherwise. Experts are beyond it: the last bits of their
	// products depend on how many tokens reach them. Recurrences share nothing then,
	// and have the same bits with the same Chunk.
	Exact bool
}

// withDefaults fills in what is 0.
func (o Options) withDefaults(m *model.Model) Options {
	o.Texts = cmp.Or(o.Texts, 16)
	o.Queue = cmp.Or(o.Queue, 64)
	o.Chunk = cmp.Or(o.Chunk, 128)
	if o.CacheBytes == 0 {
		o.CacheBytes = int64(o.Texts) * m.CacheBytes(m.Config.MaxPositions)
	}
	return o
}

// Validate refuses what is no number of texts.
func (o Options) Validate() error {
	if o.Texts < 0 || o.Queue < 0 || o.Chunk < 0 || o.CacheBytes < 0 {
		return fmt.Errorf("texts %d, queue %d, chunk %d, cache %d bytes: want none negative", o.Texts, o.Queue, o.Chunk, o.CacheBytes)
	}
	return nil
}

// Bytes returns the memory that a Runner takes for the weights of m and for the
// activations of its steps.
func Bytes(m *model.Model, opt Options) int64 {
	opt = opt.withDefaults(m)
	_, block := m.FitBlocks(math.MaxInt64)
	rows := opt.rows()
	return int64(m.Blocks())*block + m.WholeHeadBytes() + m.ScratchBytes(rows) + 8*int64(opt.Texts)*int64(m.Config.Vocab)
}

// rows is the most that a step has.
func (o Options) rows() int { return max(model.PiecesRows, o.Texts+o.Chunk) }

// Runner continues texts. Several goroutines may call it.
type Runner struct {
	m   *model.Model
	opt Options

	// What one step needs: of the goroutine that computes.
	blocks   []*model.Block
	head     *model.Head
	state    *model.State
	x        engine.Mat // rows × width
	last     engine.Mat // the rows that logits are of
	logits   engine.Mat
	host     tensor.Matrix // logits
	zeros    tensor.Matrix
	rankings sync.Pool
	running  []*text
	kept     prefixes

	mu      sync.Mutex
	wake    *sync.Cond // of the goroutine that computes
	waiting []*text
	closing bool // no more requests are taken
	cut     bool // and those that are there end
	count   Counts
	done    chan struct{} // closed when nothing computes any more
}

// Counts says what a Runner has done and is doing.
type Counts struct {
	Running, Waiting int   // texts
	CacheBytes       int64 // reserved for keys and values, as far as CacheBytes allows

	Requests int64 // that were taken
	Refused  int64 // for want of a place in the queue
	Prompt   int64 // tokens of prompts
	Shared   int64 // of these, those that were not computed again
	New      int64 // tokens that were generated
	Steps    int64
}

// New reads the weights of m and begins to wait for requests. Close ends it.
func New(m *model.Model, opt Options, report progress.Func) (*Runner, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults(m)
	rows, vocab := opt.rows(), m.Config.Vocab
	few := max(opt.Texts, model.PiecesRows)
	r := &Runner{
		m: m, opt: opt, state: m.NewState(),
		x: m.NewMat(rows), last: m.NewMat(few), logits: m.Engine().NewMat(few, vocab),
		host: tensor.NewMatrix(few, vocab), zeros: tensor.NewMatrix(model.PiecesRows, m.Width()),
		rankings: sync.Pool{New: func() any { return new(generate.Ranking) }},
		done:     make(chan struct{}),
	}
	r.wake = sync.NewCond(&r.mu)
	bar := report.Start("load", int64(m.Blocks()), "blocks")
	for i := range m.Blocks() {
		b, err := m.LoadBlock(i)
		if err != nil {
			return nil, err
		}
		r.blocks = append(r.blocks, b)
		bar.Add(1)
	}
	var err error
	if r.head, err = m.LoadWholeHead(); err != nil {
		return nil, err
	}
	go r.work()
	return r, nil
}

// ErrClosed is what a Runner that ends says to requests, and ErrQueue one that
// has as many as Options.Queue waiting.
var (
	ErrClosed = errors.New("the server is about to end")
	ErrQueue  = errors.New("too many requests are waiting")
)

// Close takes no more requests, waits until those that it has are done, or ctx
// ends, which ends them, and gives up the memory.
func (r *Runner) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closing = true
	r.wake.Signal()
	r.mu.Unlock()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.cut = true
	r.wake.Signal()
	r.mu.Unlock()
	<-r.done
	return ctx.Err()
}

// Counts returns the state of r.
func (r *Runner) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.count
	c.Waiting = len(r.waiting)
	return c
}

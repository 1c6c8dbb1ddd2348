package task

import (
	"context"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

// Options say how much memory the hidden states between blocks may take.
type Options struct {
	Bytes    int64         // 0: DefaultBytes; a document is never split
	Progress progress.Func // may be nil
}

// DefaultBytes of hidden states: 64 thousand tokens of a model 4096 wide.
const DefaultBytes = 1 << 30

// Likelihoods are of one document's choices, in their order.
type Likelihoods struct {
	Log    []float64 // Σ ln p of the continuation's tokens, nats
	Tokens []int     // of the continuation
}

// Score measures m on docs: for each choice
//
//	Log = Σ_t ln p(continuation_t | context, continuation_<t)
//
// The documents pass the model in groups whose hidden states fit Bytes; a
// group passes one block before the next is loaded, so one block is in memory
// at a time. What the choices of a document have in common is computed once.
// A document's result does not depend on its group. Logits are float32, sums
// float64. A likelihood that is not finite is an error.
func Score(ctx context.Context, m *model.Model, e *Encoder, docs []Document, opt Options) ([]Likelihoods, error) {
	all, err := e.all(m, docs)
	if err != nil {
		return nil, err
	}
	if opt.Bytes == 0 {
		opt.Bytes = DefaultBytes
	}
	most := max(1, int(opt.Bytes/int64(4*m.Width())))
	s := &scorer{
		m: m, prefix: m.NewDecoder(0), rest: m.NewDecoder(0), results: make([]Likelihoods, 0, len(docs)),
		bar: opt.Progress.Start("tasks", int64(len(docs)*(m.Blocks()+1)), "documents"),
	}
	for len(all) > 0 {
		n, tokens := 0, 0
		for n < len(all) && (n == 0 || tokens+all[n].tokens() <= most) {
			tokens += all[n].tokens()
			n++
		}
		if err := s.group(ctx, all[:n], tokens); err != nil {
			return nil, err
		}
		all = all[n:]
	}
	return s.results, nil
}

// all encodes docs; nothing is computed before all are known to be right.
func (e *Encoder) all(m *model.Model, docs []Document) ([]*sequences, error) {
	all, errs := make([]*sequences, len(docs)), make([]error, len(docs))
	parallel.For(len(docs), 16, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			all[i], errs[i] = e.sequences(m, &docs[i])
		}
	})
	for i, err := range errs {
		if err != nil {
			return nil, &DocumentError{Index: i, Err: err}
		}
	}
	return all, nil
}

// DocumentError is about one of the documents given to Score.
type DocumentError struct {
	Index int
	Err   error
}

func (e *DocumentError) Error() string { return fmt.Sprintf("document %d: %v", e.Index, e.Err) }
func (e *DocumentError) Unwrap() error { return e.Err }

type scorer struct {
	m            *model.Model
	prefix, rest *model.State
	memory       []float32
	results      []Likelihoods
	bar          *progress.Bar
}

// group scores documents whose hidden states, of so many tokens, are in memory
// together.
func (s *scorer) group(ctx context.Context, docs []*sequences, tokens int) error {
	width := s.m.Width()
	if cap(s.memory) < tokens*width {
		s.memory = make([]float32, tokens*width)
	}
	all := tensor.Matrix{Rows: tokens, Cols: width, Data: s.memory[:tokens*width]}
	states, at := make([]tensor.Matrix, len(docs)), 0
	for i, d := range docs {
		states[i] = all.Slice(at, at+d.tokens())
		at += d.tokens()
		if err := s.embed(d, states[i]); err != nil {
			return s.wrong(i, err)
		}
	}
	for b := range s.m.Blocks() {
		block, err := s.m.LoadBlock(b)
		if err != nil {
			return err
		}
		for i, d := range docs {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.forward(block, d, states[i]); err != nil {
				return err
			}
			s.bar.Add(1)
		}
		block.Release()
	}
	return s.likelihoods(ctx, docs, states)
}

func (s *scorer) wrong(i int, err error) error {
	return &DocumentError{Index: len(s.results) + i, Err: err}
}

func (s *scorer) embed(d *sequences, x tensor.Matrix) error {
	at := len(d.prefix)
	if err := s.m.Embed(x.Slice(0, at), d.prefix); err != nil {
		return err
	}
	for _, r := range d.rests {
		if err := s.m.Embed(x.Slice(at, at+len(r)), r); err != nil {
			return err
		}
		at += len(r)
	}
	return nil
}

// forward runs a document's hidden states through block: the prefix, and each
// rest from where the prefix ended.
func (s *scorer) forward(block model.Block, d *sequences, x tensor.Matrix) error {
	at := len(d.prefix)
	s.prefix.Begin(d.longest())
	if at > 0 {
		if err := block.Forward(s.prefix, x.Slice(0, at)); err != nil {
			return err
		}
	}
	for _, r := range d.rests {
		if len(r) == 0 {
			continue
		}
		s.prefix.Fork(s.rest)
		if err := block.Forward(s.rest, x.Slice(at, at+len(r))); err != nil {
			return err
		}
		at += len(r)
	}
	return nil
}

// likelihoods turns the last block's outputs into results, many predictions at
// a time: the head's matrix is streamed once for each batch.
func (s *scorer) likelihoods(ctx context.Context, docs []*sequences, states []tensor.Matrix) error {
	head, err := s.m.LoadHead()
	if err != nil {
		return err
	}
	const batch = 2048 // predictions; makes the stream cheap beside the product
	x := tensor.NewMatrix(batch, s.m.Width())
	targets := make([]int32, 0, batch)
	nll := make([]float64, batch)
	var sums []*float64 // that the predictions belong to
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := len(targets)
		if err := head.NLL(x.Slice(0, n), targets, nll[:n]); err != nil {
			return err
		}
		for i, sum := range sums {
			*sum -= nll[i]
		}
		targets, sums = targets[:0], sums[:0]
		return nil
	}
	first := len(s.results)
	for i, d := range docs {
		l := Likelihoods{Log: make([]float64, len(d.spans)), Tokens: make([]int, len(d.spans))}
		for c, sp := range d.spans {
			l.Tokens[c] = len(sp.targets)
			for k, id := range sp.targets {
				copy(x.Row(len(targets)), states[i].Row(d.row(sp.rest, sp.first+k)))
				targets, sums = append(targets, id), append(sums, &l.Log[c])
				if len(targets) == batch {
					if err := flush(); err != nil {
						return err
					}
				}
			}
		}
		s.results = append(s.results, l)
		s.bar.Add(1)
	}
	if err := flush(); err != nil {
		return err
	}
	return finite(s.results, first)
}

// finite checks results from the first on.
func finite(results []Likelihoods, first int) error {
	for i := first; i < len(results); i++ {
		for c, v := range results[i].Log {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return &DocumentError{Index: i, Err: fmt.Errorf("choice %d has a log-likelihood of %v, want a finite number", c, v)}
			}
		}
	}
	return nil
}

package task

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/tensor"
)

// Options say how much memory the hidden states between blocks may take, and
// what is known from earlier runs.
type Options struct {
	Bytes    int64         // 0: DefaultBytes; a document is never split; keys and values take a quarter as much
	Results  *Results      // of the model; nil: none are kept
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
// The documents pass the model in groups, whose hidden states fit Bytes; a
// group passes one block before the next is loaded, so one block is in memory
// at a time, many documents' tokens in one product. What the choices of a
// document have in common is computed once. A document's result does not depend
// on its group, but for the last bits in models with experts. Logits are float32, sums
// float64. A likelihood that is not finite is an error. A group's results are
// kept when it is done, and those that are known are not measured.
func Score(ctx context.Context, m *model.Model, e *Encoder, docs []Document, opt Options) ([]Likelihoods, error) {
	all, err := e.all(m, docs)
	if err != nil {
		return nil, err
	}
	if opt.Bytes == 0 {
		opt.Bytes = DefaultBytes
	}
	most := max(1, int(opt.Bytes/int64(4*m.Width())))
	results := make([]Likelihoods, len(docs))
	var todo []int // of docs, those to be measured
	for i, d := range all {
		var known bool
		if results[i], known = opt.Results.find(d); !known {
			todo = append(todo, i)
		}
	}
	if len(todo) == 0 {
		return results, nil
	}
	s := &scorer{
		m: m, state: m.NewState(), stream: m.Engine().NewStream(), bytes: opt.Bytes, results: results,
		bar: opt.Progress.Start("tasks", int64(len(todo)*(m.Blocks()+1)), "documents"),
	}
	size, done, wanted := firstGroup, 0, len(todo)
	for len(todo) > 0 {
		n, tokens := 0, 0
		for n < len(todo) && (n == 0 || tokens+all[todo[n]].tokens() <= min(most, size)) {
			tokens += all[todo[n]].tokens()
			n++
		}
		s.name = fmt.Sprintf("tasks: documents %d to %d of %d", done+1, done+n, wanted)
		done += n
		start := time.Now()
		if err := s.group(ctx, all, todo[:n]); err != nil {
			return nil, err
		}
		s.keep(opt.Results, all, todo[:n])
		size = nextGroup(tokens, time.Since(start), s.loading)
		todo = todo[n:]
	}
	return results, nil
}

// firstGroup is the tokens of the first group. The next are as large as makes a
// group take groupTime, which is what an interruption costs at most; but so
// large that reading the blocks is not more than a twentieth of it.
const (
	firstGroup = 4096
	groupTime  = 30 * time.Second
)

// nextGroup returns the tokens for a group, after one of so many tokens took
// that time, of which loading was for reading.
func nextGroup(tokens int, took, loading time.Duration) int {
	perToken := max(float64(took-loading), 1) / float64(tokens)
	want := max(float64(groupTime), 20*float64(loading)) / perToken
	return int(min(max(want, firstGroup), 1<<40))
}

// keep puts the results of documents where the next run finds them.
func (s *scorer) keep(r *Results, all []*sequences, which []int) {
	docs, found := make([]*sequences, len(which)), make([]Likelihoods, len(which))
	for i, at := range which {
		docs[i], found[i] = all[at], s.results[at]
	}
	r.add(docs, found)
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
	m       *model.Model
	state   *model.State
	stream  engine.Stream
	bytes   int64          // of hidden states; a quarter as much is for keys and values
	caches  []*model.Cache // of sequences, for any
	memory  engine.Mat
	results []Likelihoods // of all documents
	loading time.Duration // of the last group's blocks
	bar     *progress.Bar
	name    string // of the group, in progress reports
}

// group scores some of the documents, whose hidden states are in memory
// together.
func (s *scorer) group(ctx context.Context, all []*sequences, which []int) error {
	longest := 0
	for _, doc := range which {
		longest = max(longest, all[doc].longest())
	}
	batches, rows := batchesOf(all, which, int(max(s.bytes/4/stateBytes(s.m, longest), 1)))
	if s.memory.Rows < rows {
		s.memory = s.m.NewMat(rows)
	}
	memory := s.memory.Slice(0, rows)
	for _, b := range batches {
		if err := s.embed(memory, b); err != nil {
			return err
		}
	}
	s.loading = 0
	blocks := s.m.Read(0, s.m.Blocks())
	defer blocks.Close()
	for i := range s.m.Blocks() {
		s.bar.Part(fmt.Sprintf("%s, block %d of %d", s.name, i+1, s.m.Blocks()), int64(len(which)))
		start := time.Now()
		block, err := blocks.Next()
		if err != nil {
			return err
		}
		s.loading += time.Since(start)
		for _, b := range batches {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.forward(block, memory, b); err != nil {
				return err
			}
			s.bar.Add(int64(len(b.docs)))
		}
		block.Release()
	}
	s.bar.Part(s.name+", head", int64(len(which)))
	return s.likelihoods(ctx, batches, memory)
}

func (s *scorer) embed(memory engine.Mat, b batch) error {
	s.clear(memory.Slice(b.lo+b.prefixes(), b.rests)) // rows that are nobody's
	s.clear(memory.Slice(b.rests+b.after(), b.hi))
	for _, d := range b.docs {
		err := s.m.Embed(memory.Slice(d.prefixAt, d.prefixAt+len(d.prefix)), d.prefix)
		for i, r := range d.rests {
			if err == nil {
				err = s.m.Embed(memory.Slice(d.restAt[i], d.restAt[i]+len(r)), r)
			}
		}
		if err != nil {
			return &DocumentError{Index: d.doc, Err: err}
		}
	}
	return nil
}

// clear sets rows to 0.
func (s *scorer) clear(rows engine.Mat) {
	s.m.Engine().Upload(rows, tensor.NewMatrix(rows.Rows, rows.Cols))
}

// forward runs a batch's hidden states through block: the beginnings, and then
// each rest from where its document's beginning ended.
func (s *scorer) forward(block *model.Block, memory engine.Mat, b batch) error {
	used := 0
	cache := func(tokens int) *model.Cache {
		if used == len(s.caches) {
			s.caches = append(s.caches, s.m.NewCache(0))
		}
		c := s.caches[used]
		used++
		c.Begin(tokens)
		return c
	}
	var prefixes, rests []model.Piece
	for _, d := range b.docs {
		prefixes = append(prefixes, model.Piece{Cache: cache(d.longest()), Tokens: len(d.prefix)})
	}
	if err := block.Run(s.state, memory.Slice(b.lo, b.rests), model.Mode{Pieces: prefixes}); err != nil {
		return err
	}
	for i, d := range b.docs {
		for _, r := range d.rests {
			if len(r) > 0 {
				c := cache(0)
				prefixes[i].Cache.Fork(c)
				rests = append(rests, model.Piece{Cache: c, Tokens: len(r)})
			}
		}
	}
	if len(rests) == 0 {
		return nil
	}
	return block.Run(s.state, memory.Slice(b.rests, b.hi), model.Mode{Pieces: rests})
}

// likelihoods turns the last block's outputs into results, many predictions at
// a time: the head's matrix is streamed once for each batch.
func (s *scorer) likelihoods(ctx context.Context, batches []batch, memory engine.Mat) error {
	head, err := s.m.LoadHead()
	if err != nil {
		return err
	}
	const most = 2048 // predictions; makes the stream cheap beside the product
	x := s.m.NewMat(most)
	rows := make([]engine.Routed, 0, most) // of memory, those that predict
	targets := make([]int32, 0, most)
	nll := make([]float64, most)
	var sums []*float64 // that the predictions belong to
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.stream.Gather(x, memory, rows)
		for len(targets) < model.PiecesRows {
			targets = append(targets, -1) // none
		}
		n := len(targets)
		if err := head.NLL(x.Slice(0, n), targets, nll[:n]); err != nil {
			return err
		}
		for i, sum := range sums {
			*sum -= nll[i]
		}
		targets, sums, rows = targets[:0], sums[:0], rows[:0]
		return nil
	}
	for _, b := range batches {
		for _, d := range b.docs {
			l := d.likelihoods()
			for c, sp := range d.spans {
				for k, id := range sp.targets {
					rows = append(rows, engine.Routed{Token: d.row(sp.rest, sp.first+k)})
					targets, sums = append(targets, id), append(sums, &l.Log[c])
					if len(targets) == most {
						if err := flush(); err != nil {
							return err
						}
					}
				}
			}
			s.results[d.doc] = l
			s.bar.Add(1)
		}
	}
	if err := flush(); err != nil {
		return err
	}
	for _, b := range batches {
		for _, d := range b.docs {
			if err := s.results[d.doc].finite(); err != nil {
				return &DocumentError{Index: d.doc, Err: err}
			}
		}
	}
	return nil
}

// likelihoods returns those of s with all sums 0.
func (s *sequences) likelihoods() Likelihoods {
	l := Likelihoods{Log: make([]float64, len(s.spans)), Tokens: make([]int, len(s.spans))}
	for c, sp := range s.spans {
		l.Tokens[c] = len(sp.targets)
	}
	return l
}

func (l *Likelihoods) finite() error {
	for c, v := range l.Log {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("choice %d has a log-likelihood of %v, want a finite number", c, v)
		}
	}
	return nil
}

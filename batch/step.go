package batch

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

// text is a request at work.
type text struct {
	ctx     context.Context
	req     Request
	ids     []int32 // the prompt and what came after it
	limit   int     // the most tokens that it may have
	end     generate.Reason
	sampler *generate.Sampler
	box     mailbox
	gone    atomic.Bool // nobody waits for it

	cache  *model.Cache
	alike  int   // the length up to which its tokens turn as they do
	fed    int   // tokens that the cache has
	shared int   // of these, those of another text
	bytes  int64 // of keys and values at most
	bad    bool  // its values cannot be trusted for others
}

// leave gives up a text that is not at its end.
func (t *text) leave(r *Runner) {
	t.gone.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.waiting, t); i >= 0 {
		r.waiting = slices.Delete(r.waiting, i, i+1)
	}
	r.wake.Signal()
}

// left reports whether nobody waits for t any more.
func (t *text) left() bool { return t.gone.Load() || t.ctx.Err() != nil }

// work computes until the Runner closes.
func (r *Runner) work() {
	defer close(r.done)
	for r.admit() {
		if err := r.step(); err != nil {
			for _, t := range r.running {
				t.box.put(&ending{err: err})
			}
			r.running = nil // their caches may be half of a step ahead
			r.kept.clear()
		}
		r.publish()
	}
	for _, t := range append(r.running, r.waiting...) {
		t.box.put(&ending{err: ErrClosed})
	}
	r.running, r.waiting, r.blocks = nil, nil, nil
	r.kept.clear()
	r.publish()
}

// publish brings the counts up to date.
func (r *Runner) publish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count.Running, r.count.CacheBytes = len(r.running), r.reserved()
}

// reserved returns the bytes of keys and values that are spoken for.
func (r *Runner) reserved() int64 {
	n := r.kept.bytes
	for _, t := range r.running {
		n += t.bytes
	}
	return n
}

// admit lets go of the texts that nobody waits for, and takes in those that there
// is room for. It waits until there is something to do, and returns false when
// there will be nothing any more.
func (r *Runner) admit() bool {
	r.running = slices.DeleteFunc(r.running, func(t *text) bool {
		if t.left() {
			r.retire(t)
			return true
		}
		return false
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.cut {
			return false
		}
		r.beginAll()
		switch {
		case len(r.running) > 0:
			r.count.Running = len(r.running)
			return true
		case r.closing && len(r.waiting) == 0:
			return false
		case len(r.waiting) == 0:
			r.count.Running, r.count.CacheBytes = 0, r.reserved()
			r.wake.Wait()
		}
	}
}

// beginAll makes waiting texts run, in their order: a long one that there is no
// room for is not passed by short ones. One may pass another that waits until what
// it shares is computed.
func (r *Runner) beginAll() {
	var later []*text
	for i, t := range r.waiting {
		if t.left() {
			continue
		}
		if len(r.running) == r.opt.Texts {
			r.waiting = append(later, r.waiting[i:]...)
			return
		}
		t.alike = r.m.LongestAlike(len(t.ids), t.limit)
		source, ready := r.source(t)
		switch {
		case ready < 0:
			later = append(later, t)
		case !r.begin(t, source, ready):
			r.waiting = append(later, r.waiting[i:]...)
			return
		}
	}
	r.waiting = later
}

// begin makes t one of the running texts, which goes on from the first tokens of
// source, if there is room.
func (r *Runner) begin(t *text, source *model.Cache, ready int) bool {
	for r.reserved()+t.bytes > r.opt.CacheBytes {
		if !r.kept.dropOldest() {
			return false
		}
	}
	t.cache = r.m.NewCache(t.alike)
	if source != nil { // its memory lives on even if it was dropped
		source.ForkAt(ready, t.alike, t.cache)
		t.fed, t.shared = ready, ready
	}
	r.running = append(r.running, t)
	r.count.Prompt += int64(len(t.ids))
	r.count.Shared += int64(t.shared)
	return true
}

// leastShared is how many tokens are worth sharing.
const leastShared = 16

// source returns a cache whose first tokens, so many, are those of t; nil if there
// is none, and −1 if a running text is about to have more of them.
func (r *Runner) source(t *text) (best *model.Cache, tokens int) {
	most := len(t.ids) - 1 // the last gives the logits
	common := func(ids []int32, alike int) int {
		if !r.m.SameRotation(alike, t.alike) {
			return 0
		}
		n := 0
		for n < min(most, len(ids)) && ids[n] == t.ids[n] {
			n++
		}
		return n
	}
	if r.opt.Exact && !r.m.Rewinds() {
		return nil, 0
	}
	tokens = leastShared - 1
	for _, e := range slices.Clone(r.kept.list) { // which touch changes
		n := common(e.ids, e.alike)
		if n > tokens && (r.m.Rewinds() || n == len(e.ids)) {
			best, tokens = e.cache, n
			r.kept.touch(e)
		}
	}
	soon := tokens
	for _, o := range r.running {
		if !r.m.Rewinds() {
			break
		}
		n := common(o.ids, o.alike)
		if have := min(n, o.fed); have > tokens {
			best, tokens = o.cache, have
		}
		if !o.left() {
			soon = max(soon, n)
		}
	}
	switch {
	case soon >= tokens+leastShared:
		return nil, -1
	case best == nil:
		return nil, 0
	}
	return best, tokens
}

// retire keeps what t has computed for prompts that begin so.
func (r *Runner) retire(t *text) {
	if t.fed >= leastShared && !t.bad {
		r.kept.add(&prefix{ids: t.ids[:t.fed], alike: t.alike, cache: t.cache, bytes: r.m.CacheBytes(t.fed)}, r.m.Rewinds())
	}
	t.cache = nil
}

// part is what a step takes in of a text: its next n tokens.
type part struct {
	*text
	n int
}

// plan chooses what the next step takes in. Texts that are after their prompt come
// first, with a token each; then the prompts, the oldest first.
func (r *Runner) plan() []part {
	var parts []part
	for _, t := range r.running {
		if len(t.ids) > t.alike { // its tokens turn otherwise from now on: anew
			t.alike = r.m.LongestAlike(len(t.ids), t.limit)
			t.cache.Begin(t.alike)
			t.fed = 0
		}
		if len(t.ids)-t.fed == 1 {
			parts = append(parts, part{t, 1})
		}
	}
	room := r.opt.Chunk
	for _, t := range r.running {
		n := len(t.ids) - t.fed
		if n < 2 {
			continue
		}
		if r.m.Rewinds() {
			n = min(n, room)
		} else if n = min(n, r.opt.Chunk-t.fed%r.opt.Chunk); n > room {
			continue // where a prompt is cut changes the bits of a recurrence: always at these places
		}
		if n > 0 {
			room -= n
			parts = append(parts, part{t, n})
		}
	}
	return parts
}

// step takes in the next tokens of all texts, and chooses those that follow.
func (r *Runner) step() error {
	parts := r.plan()
	var ids []int32
	var pieces []model.Piece
	for _, p := range parts {
		ids = append(ids, p.ids[p.fed:p.fed+p.n]...)
		pieces = append(pieces, model.Piece{Cache: p.cache, Tokens: p.n})
	}
	rows := r.fill(len(ids), r.x.Rows)
	x := r.x.Slice(0, rows)
	if err := r.m.Embed(x.Slice(0, len(ids)), ids); err != nil {
		return err
	}
	r.clear(x.Slice(len(ids), rows))
	for _, b := range r.blocks {
		if err := b.Run(r.state, x, model.Mode{Pieces: pieces}); err != nil {
			return err
		}
	}
	var due []*text // those whose next token is to be chosen
	at := 0
	row := tensor.NewMatrix(1, r.m.Width())
	for _, p := range parts {
		p.fed += p.n
		at += p.n
		if p.fed == len(p.ids) {
			r.m.Engine().Download(row, x.Slice(at-1, at))
			r.m.Engine().Upload(r.last.Slice(len(due), len(due)+1), row)
			due = append(due, p.text)
		}
	}
	r.mu.Lock()
	r.count.Steps++
	r.mu.Unlock()
	if len(due) == 0 {
		return nil
	}
	return r.choose(due)
}

// fill returns how many rows a product of n has.
func (r *Runner) fill(n, most int) int {
	if r.opt.Exact {
		return min(max(n, model.PiecesRows), most)
	}
	return n
}

// clear writes zeros into rows that are nobody's.
func (r *Runner) clear(x engine.Mat) {
	if x.Rows > 0 {
		r.m.Engine().Upload(x, r.zeros.Slice(0, x.Rows))
	}
}

// choose chooses the next tokens of texts, whose hidden states are in last.
func (r *Runner) choose(due []*text) error {
	rows := r.fill(len(due), r.last.Rows)
	r.clear(r.last.Slice(len(due), rows))
	logits, host := r.logits.Slice(0, rows), r.host.Slice(0, rows)
	if err := r.head.Logits(logits, r.last.Slice(0, rows)); err != nil {
		return err
	}
	r.m.Engine().Download(host, logits)
	tokens, errs := make([]Token, len(due)), make([]error, len(due))
	parallel.For(len(due), 1, func(lo, hi int) {
		ranking := r.rankings.Get().(*generate.Ranking)
		defer r.rankings.Put(ranking)
		for i := lo; i < hi; i++ {
			tokens[i], errs[i] = due[i].next(host.Row(i), ranking)
		}
	})
	made := int64(0)
	for i, t := range due {
		switch stop := slices.Contains(t.req.Options.Stop, tokens[i].ID); {
		case errs[i] != nil:
			t.bad = true
			r.finish(t, &ending{err: errs[i]})
		case len(t.ids) == t.limit: // its prompt is as long as it may be
			r.finish(t, &ending{Result: Result{t.end, t.shared}})
		case stop:
			r.finish(t, &ending{Result: Result{generate.AtStop, t.shared}})
		default:
			made++
			t.ids = append(t.ids, tokens[i].ID)
			if len(t.ids) == t.limit {
				r.finish(t, &ending{Result: Result{t.end, t.shared}}, tokens[i])
			} else {
				t.box.put(nil, tokens[i])
			}
		}
	}
	r.mu.Lock()
	r.count.New += made
	r.mu.Unlock()
	return nil
}

// next chooses t's next token.
func (t *text) next(logits []float32, ranking *generate.Ranking) (Token, error) {
	id, err := t.sampler.Next(logits, ranking)
	token := Token{ID: id}
	if err != nil || !t.req.Logprobs {
		return token, err
	}
	sum := ranking.LogSum()
	token.Logprob = float64(logits[id]) - sum
	for _, id := range ranking.Top(t.req.Top) {
		token.Top = append(token.Top, Likely{id, float64(logits[id]) - sum})
	}
	return token, nil
}

// finish ends t.
func (r *Runner) finish(t *text, end *ending, tokens ...Token) {
	i := slices.Index(r.running, t)
	r.running = slices.Delete(r.running, i, i+1)
	r.retire(t)
	t.box.put(end, tokens...)
}

package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/crepe-llm/crepe/generate"
)

// Request is a text to continue.
type Request struct {
	Prompt   []int32
	Options  generate.Options
	Logprobs bool // whether Tokens have a Logprob
	Top      int  // so many of the likeliest tokens come with each Token
}

// Token is a new token of a text.
type Token struct {
	ID      int32
	Logprob float64 // of the model's own probability, nats; 0 unless asked for
	Top     []Likely
}

// Likely is a token that could have come, and its log-probability in nats.
type Likely struct {
	ID      int32
	Logprob float64
}

// Result says how a text ended, and how much of its prompt was there already.
type Result struct {
	Reason generate.Reason
	Shared int // tokens
}

// Run continues req.Prompt and calls yield with each new token, in the caller's
// goroutine: a slow one delays nobody else. An error of yield ends the text and is
// returned as it is, as is that of ctx.
func (r *Runner) Run(ctx context.Context, req Request, yield func(Token) error) (Result, error) {
	t, err := r.newText(ctx, req)
	if err != nil {
		return Result{}, err
	}
	defer t.leave(r)
	r.mu.Lock()
	switch {
	case r.closing:
		err = ErrClosed
	case len(r.waiting) >= r.opt.Queue:
		r.count.Refused++
		err = ErrQueue
	default:
		r.count.Requests++
		r.waiting = append(r.waiting, t)
		r.wake.Signal()
	}
	r.mu.Unlock()
	if err != nil {
		return Result{}, err
	}
	for {
		select {
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case <-t.box.news:
		}
		tokens, end := t.box.take()
		for _, token := range tokens {
			if err := yield(token); err != nil {
				return Result{}, err
			}
		}
		if end != nil {
			return end.Result, end.err
		}
	}
}

// newText checks a request.
func (r *Runner) newText(ctx context.Context, req Request) (*text, error) {
	limit := r.m.Config.MaxPositions
	switch n := len(req.Prompt); {
	case n == 0:
		return nil, errors.New("the prompt has no tokens, want at least one")
	case n > limit:
		return nil, &TooLongError{Tokens: n, Most: limit}
	case req.Top < 0 || req.Top > MaxTop:
		return nil, fmt.Errorf("%d of the likeliest tokens, want at most %d", req.Top, MaxTop)
	}
	if err := req.Options.Validate(); err != nil {
		return nil, err
	}
	for i, id := range req.Prompt {
		if id < 0 || int(id) >= r.m.Config.Vocab {
			return nil, fmt.Errorf("token %d of the prompt has id %d, want one in [0, %d)", i, id, r.m.Config.Vocab)
		}
	}
	t := &text{
		ctx: ctx, req: req, ids: append([]int32(nil), req.Prompt...),
		limit: limit, end: generate.AtLimit, sampler: generate.NewSampler(req.Options.Sampling),
		box: mailbox{news: make(chan struct{}, 1)},
	}
	if n := req.Options.MaxTokens; n > 0 && n <= limit-len(req.Prompt) {
		t.limit, t.end = len(req.Prompt)+n, generate.AtMaxTokens
	}
	if t.bytes = r.m.CacheBytes(t.limit); t.bytes > r.opt.CacheBytes {
		return nil, &TooLargeError{Tokens: t.limit, Bytes: t.bytes, Most: r.opt.CacheBytes}
	}
	return t, nil
}

// MaxTop is how many of the likeliest tokens a Request may ask for.
const MaxTop = 64

// TooLongError says that a prompt has more tokens than the model takes.
type TooLongError struct{ Tokens, Most int }

func (e *TooLongError) Error() string {
	return fmt.Sprintf("the prompt has %d tokens, want at most the model's %d", e.Tokens, e.Most)
}

// TooLargeError says that there is no room for the keys and values of a text of so
// many tokens, prompt and answer together.
type TooLargeError struct {
	Tokens      int
	Bytes, Most int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d tokens take %d MiB of keys and values, and there are %d MiB: ask for fewer tokens", e.Tokens, e.Bytes>>20, e.Most>>20)
}

// ending is the last of a text.
type ending struct {
	Result
	err error
}

// mailbox holds what its owner has not taken yet: no more than the tokens that
// the request asked for.
type mailbox struct {
	news chan struct{} // has room for one

	mu     sync.Mutex
	tokens []Token
	end    *ending
}

// put adds tokens, and the end if there is one.
func (b *mailbox) put(end *ending, tokens ...Token) {
	b.mu.Lock()
	b.tokens = append(b.tokens, tokens...)
	b.end = end
	b.mu.Unlock()
	select {
	case b.news <- struct{}{}:
	default: // it has not seen the news before
	}
}

// take returns what there is.
func (b *mailbox) take() ([]Token, *ending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tokens := b.tokens
	b.tokens = nil
	return tokens, b.end
}

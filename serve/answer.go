package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/crepe-llm/crepe/talk"
)

// asked is the body of a request for completions.
type asked interface {
	base() *common
	texts(s *Server, m *talk.Model) (prompts [][]int32, opt talk.Options, err error)
	form(m *talk.Model, choices int) form
}

// form is how answers of one kind are written.
type form interface {
	// begin is what a stream says first.
	begin() []any

	// piece is what a stream says of a choice: text, what is known of its token, or
	// at the end, without these, why it ended.
	piece(choice int, p talk.Piece, finish string) any

	// add takes a piece of a choice into the answer, which is what is sent at once
	// where nothing is streamed. A piece goes to add or to piece.
	add(choice int, p talk.Piece)
	answer(finish []string, u usage) any

	// used is the last that a stream says, if it was asked for it.
	used(u usage) any
}

// usage counts tokens.
type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
	Details    struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// newID returns an id that no other answer has.
func newID(prefix string) string {
	var b [12]byte
	rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// event is a piece of one of a request's texts, or its end.
type event struct {
	choice int
	piece  talk.Piece
	end    *talk.Ending
	err    error
}

// answer reads a request for completions and answers it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, q asked) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), s.opt.Timeout)
	defer cancel()
	out, err := s.run(ctx, w, r, q, start)
	switch {
	case err == nil:
	case r.Context().Err() != nil || errors.Is(err, errClient):
		s.metrics.gone.Inc()
	default:
		s.metrics.failed(asAPIError(err).Status)
		if out.begun {
			out.send(errorBody(err)) // all that a stream can still say
		} else {
			writeError(w, err)
		}
	}
}

// run answers q; an error has not been sent yet.
func (s *Server) run(ctx context.Context, w http.ResponseWriter, r *http.Request, q asked, start time.Time) (*stream, error) {
	out := &stream{w: w, control: http.NewResponseController(w)}
	if err := readRequest(w, r, q); err != nil {
		return out, err
	}
	c := q.base()
	m, err := s.model(c.Model)
	if err != nil {
		return out, err
	}
	prompts, opt, err := q.texts(s, m)
	if err != nil {
		return out, err
	}
	texts := len(prompts) * c.choices()
	if texts > maxChoices {
		return out, badRequest("n", "too many prompts and choices in one request")
	}
	for _, p := range prompts {
		if err := s.checkLength(m, p); err != nil {
			return out, err
		}
	}
	f := q.form(m, texts)
	if c.Stream {
		for _, first := range f.begin() {
			if err := out.send(first); err != nil {
				return out, err
			}
		}
	}
	events := s.start(ctx, m, prompts, c.choices(), opt)
	total, finish, err := s.collect(ctx, events, f, out, &collection{
		texts: texts, streaming: c.Stream, logprobs: opt.Logprobs, model: m, start: start,
	})
	if err != nil {
		return out, err
	}
	if !c.Stream {
		if err := out.deadline(); err != nil {
			return out, err
		}
		writeJSON(w, http.StatusOK, f.answer(finish, total))
		return out, nil
	}
	if c.StreamOptions != nil && c.StreamOptions.IncludeUsage {
		if err := out.send(f.used(total)); err != nil {
			return out, err
		}
	}
	return out, out.done()
}

// start begins all texts of a request. What comes of them is read until each has
// ended, or ctx has.
func (s *Server) start(ctx context.Context, m *talk.Model, prompts [][]int32, choices int, opt talk.Options) <-chan event {
	events := make(chan event)
	for i := range len(prompts) * choices {
		go func() {
			send := func(e event) error {
				e.choice = i
				select {
				case events <- e:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			own := opt
			own.Seed += uint64(i)
			end, err := m.Continue(ctx, prompts[i/choices], own, func(p talk.Piece) error { return send(event{piece: p}) })
			if i%choices > 0 {
				end.Prompt, end.Shared = 0, 0 // counted once
			}
			send(event{end: &end, err: err})
		}()
	}
	return events
}

// collect takes what comes of n texts until all have ended, streaming it if
// streaming is set. It returns why each ended.
func (s *Server) collect(ctx context.Context, events <-chan event, f form, out *stream, c *collection) (usage, []string, error) {
	var total usage
	finish := make([]string, c.texts)
	for left := c.texts; left > 0; {
		var e event
		select {
		case e = <-events:
		case <-ctx.Done():
			return total, nil, ctx.Err()
		}
		if e.err != nil {
			return total, nil, e.err
		}
		switch {
		case e.end != nil:
			left--
			finish[e.choice] = "length"
			if e.end.Stopped {
				finish[e.choice] = "stop"
			}
			total.Prompt += e.end.Prompt
			total.Details.Cached += e.end.Shared
		case e.piece.Token != nil:
			if total.Completion == 0 {
				s.metrics.first(c.model.Name, time.Since(c.start))
			}
			total.Completion++
		}
		switch {
		case !c.streaming:
			f.add(e.choice, e.piece)
		case e.end != nil || e.piece.Text != "" || c.logprobs:
			if err := out.send(f.piece(e.choice, e.piece, finish[e.choice])); err != nil {
				return total, nil, err
			}
		}
	}
	total.Total = total.Prompt + total.Completion
	s.metrics.answered(c.model.Name, total, time.Since(c.start))
	return total, finish, nil
}

// collection says what collect collects.
type collection struct {
	texts               int
	streaming, logprobs bool
	model               *talk.Model
	start               time.Time
}

package serve

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// stream is an answer that is sent in pieces, as server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// deadline gives the client time to take what comes next. One that does not is
// given up: what it asked for has no reader.
func (s *stream) deadline() error {
	return s.control.SetWriteDeadline(time.Now().Add(writeTime))
}

// send sends a value.
func (s *stream) send(v any) error { return s.write(encode(v)) }

// done says that there is nothing more.
func (s *stream) done() error { return s.write([]byte("[DONE]")) }

func (s *stream) write(data []byte) error {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "text/event-stream")
		s.w.Header().Set("Cache-Control", "no-cache")
		s.w.WriteHeader(http.StatusOK)
	}
	err := s.deadline()
	if err == nil {
		_, err = s.w.Write(append(append([]byte("data: "), data...), "\n\n"...))
	}
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errClient, err)
	}
	return nil
}

// errClient says that the client does not take its answer.
var errClient = errors.New("the client does not take the answer")

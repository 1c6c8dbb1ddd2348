package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/chat"
)

// apiError is an error in the shape of OpenAI's.
type apiError struct {
	Status  int // of HTTP
	Message string
	Type    string
	Param   string
	Code    string
}

func (e *apiError) Error() string { return e.Message }

// MarshalJSON writes empty strings as null.
func (e *apiError) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"message": e.Message, "type": e.Type, "param": orNil(e.Param), "code": orNil(e.Code)})
}

// badRequest is an error of the request's parameter param.
func badRequest(param, message string) *apiError {
	return &apiError{Status: http.StatusBadRequest, Param: param, Message: message}
}

// asAPIError returns err as what the client is told.
func asAPIError(err error) *apiError {
	var own *apiError
	var tooLong *batch.TooLongError
	var tooLargeText *batch.TooLargeError
	e := &apiError{Status: http.StatusInternalServerError, Message: err.Error()}
	switch {
	case errors.As(err, &own):
		*e = *own
	case errors.As(err, &tooLong):
		e.Status, e.Code = http.StatusBadRequest, "context_length_exceeded"
	case errors.As(err, &tooLargeText):
		e.Status, e.Param = http.StatusBadRequest, "max_tokens"
	case errors.Is(err, chat.ErrNoTemplate):
		e.Status, e.Code, e.Param = http.StatusBadRequest, "no_chat_template", "model"
	case errors.Is(err, batch.ErrQueue):
		e.Status, e.Code = http.StatusTooManyRequests, "queue_full"
	case errors.Is(err, batch.ErrClosed):
		e.Status = http.StatusServiceUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		e.Status, e.Code, e.Message = http.StatusGatewayTimeout, "timeout", "the answer took longer than this server allows"
	}
	if e.Type == "" {
		e.Type = "invalid_request_error"
		switch {
		case e.Status == http.StatusUnauthorized:
			e.Type = "authentication_error"
		case e.Status == http.StatusTooManyRequests:
			e.Type = "rate_limit_error"
		case e.Status >= 500:
			e.Type = "server_error"
		}
	}
	return e
}

// errorBody is what an error is sent as.
func errorBody(err error) any { return map[string]any{"error": asAPIError(err)} }

func writeError(w http.ResponseWriter, err error) {
	e := asAPIError(err)
	if e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, e.Status, errorBody(e))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data := encode(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(data, '\n'))
}

// encode returns a value of this package, all of which can be written, as JSON.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("serve: " + err.Error())
	}
	return data
}

// Package serve answers HTTP requests as OpenAI's API does: /v1/completions,
// /v1/chat/completions and /v1/models, with /health, Prometheus' /metrics, and a
// page that shows the models' answers side by side. docs/serve.md says what of the
// API there is.
package serve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/talk"
)

// Options of a Server. The zero value is the documented default of each.
type Options struct {
	APIKey string // that requests must bring; "" for none

	Timeout   time.Duration // of a request, waiting included; 0: 10 minutes
	MaxPrompt int           // tokens; 0: as many as the model takes
	MaxTokens int           // new ones of an answer; 0: 4096
}

// The limits that are no options.
const (
	maxBody    = 4 << 20          // bytes of a request
	readTime   = 30 * time.Second // for a request to arrive
	writeTime  = 30 * time.Second // for a client to take a piece of an answer
	maxChoices = 16               // texts that one request asks for
)

// Server answers for models. The first is the one that a request gets which names
// none.
type Server struct {
	models  []*talk.Model
	opt     Options
	started time.Time
	mux     *http.ServeMux
	metrics *metrics
}

// New returns a Server for models, whose names differ.
func New(models []*talk.Model, opt Options) *Server {
	opt.Timeout = cmp.Or(opt.Timeout, 10*time.Minute)
	opt.MaxTokens = cmp.Or(opt.MaxTokens, 4096)
	s := &Server{models: models, opt: opt, started: time.Now(), mux: http.NewServeMux()}
	s.metrics = newMetrics(models)
	s.mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"status":"ok"}`) })
	s.mux.HandleFunc("GET /{$}", servePage)
	s.api("GET /metrics", s.metrics.serve)
	s.api("GET /v1/models", s.listModels)
	s.api("GET /v1/models/{model...}", s.getModel)
	s.api("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, new(completion)) })
	s.api("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, new(chatCompletion)) })
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &apiError{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no %s %.100s", r.Method, r.URL.Path)})
	})
	return s
}

// api handles requests that bring the key.
func (s *Server) api(pattern string, h http.HandlerFunc) {
	want := sha256.Sum256([]byte(s.opt.APIKey))
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if s.opt.APIKey != "" {
			key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			got := sha256.Sum256([]byte(key))
			if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				writeError(w, &apiError{Status: http.StatusUnauthorized, Code: "invalid_api_key",
					Message: "this server wants its API key: Authorization: Bearer KEY"})
				return
			}
		}
		h(w, r)
	})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if s.opt.APIKey == "" && rebound(r) {
		writeError(w, &apiError{Status: http.StatusForbidden, Message: fmt.Sprintf("this server is not called %.100q", r.Host)})
		return
	}
	// Every answer has an end, also one that nobody reads; pieces have less time.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opt.Timeout + writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	s.mux.ServeHTTP(w, r)
}

// rebound reports whether a request came to an address that only this machine
// reaches, but by a name that is not this machine's: that of a web page whose name
// was made to mean this address, so that it can read what is here.
func rebound(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !at.IP.IsLoopback() {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host != "localhost" && !strings.HasSuffix(host, ".localhost") && (ip == nil || !ip.IsLoopback())
}

// Serve answers on l until stop ends; then it takes no more connections, and
// returns when the requests that it has are answered, or cut ends.
func (s *Server) Serve(stop, cut context.Context, l net.Listener) error {
	h := &http.Server{Handler: s, ReadHeaderTimeout: readTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	err := h.Shutdown(cut)
	if err != nil {
		h.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		return served
	}
	return err
}

// modelObject is a model as /v1/models lists it.
type modelObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Window  int    `json:"max_model_len"`
	Chat    bool   `json:"chat"` // whether it has a chat template
}

func (s *Server) object(m *talk.Model) modelObject {
	return modelObject{m.Name, "model", s.started.Unix(), "crepe", m.Window, m.Template != nil}
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	list := struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}{Object: "list"}
	for _, m := range s.models {
		list.Data = append(list.Data, s.object(m))
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) getModel(w http.ResponseWriter, r *http.Request) {
	m, err := s.model(r.PathValue("model"))
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, s.object(m))
}

// model returns the model of that name, the first for none.
func (s *Server) model(name string) (*talk.Model, error) {
	var names []string
	for _, m := range s.models {
		if name == "" || name == m.Name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return nil, &apiError{Status: http.StatusNotFound, Code: "model_not_found", Param: "model",
		Message: fmt.Sprintf("there is no model %.100q, there is %s", name, strings.Join(names, " and "))}
}

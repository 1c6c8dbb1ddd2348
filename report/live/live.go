// Package live serves a report of what lies in some folders and files, on this machine
// alone, and tells its pages when something there has changed.
package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/report"
)

// Server serves the results at some paths.
type Server struct {
	Paths []string      // of results, or of folders of results
	Title string        // of the page
	Every time.Duration // how often files are looked at; 0: each second

	mu      sync.Mutex
	waiting map[chan struct{}]bool // one for each page that listens
}

// Serve answers on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	srv := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }, // ends the streams of events
	}
	go s.watch(ctx)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return srv.Close()
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("POST /data", s.data)
	mux.HandleFunc("GET /events", s.events)
	return local(mux)
}

// local refuses requests that name another host than this machine: a page from
// elsewhere whose name was made to lead here could read what is served.
func local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]") // [::1], without a port
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, fmt.Sprintf("host %q, want this machine's own address", host), http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

// listed is an Item in the list beside the report.
type listed struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// answer is what a page asks for.
type answer struct {
	Items    []listed         `json:"items"`
	Document *report.Document `json:"document"`
	Problems []string         `json:"problems,omitempty"` // what cannot be read, and why
}

// page writes the page with an empty document: it asks for its data at once.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	var page bytes.Buffer
	if err := report.WriteLive(&page, report.Build(s.Title, nil)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = page.WriteTo(w) // the reader may have gone
}

// maxQuestion bounds what a page may send, in bytes.
const maxQuestion = 16 << 20

func (s *Server) data(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Without []string `json:"without"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&ask); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	text, err := json.Marshal(s.answer(r.Context(), ask.Without))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

// answer reads everything but what the reader does not want to see.
func (s *Server) answer(ctx context.Context, without []string) answer {
	var a answer
	paths, problems := s.find()
	a.Problems = problems
	var all []report.Item
	for _, path := range paths {
		items, err := report.Load(ctx, []string{path})
		if err != nil {
			a.Problems = append(a.Problems, err.Error())
			continue
		}
		all = append(all, items...)
	}
	report.Rename(all)
	a.Items = []listed{}
	var shown []report.Item
	for _, i := range all {
		a.Items = append(a.Items, listed{i.Name, i.State()})
		if !slices.Contains(without, i.Name) {
			shown = append(shown, i)
		}
	}
	a.Document = report.Build(s.Title, shown)
	return a
}

// find returns the paths of all results.
func (s *Server) find() (paths, problems []string) {
	for _, path := range s.Paths {
		if st, err := os.Stat(path); err != nil || !st.IsDir() {
			paths = append(paths, path)
			continue
		}
		found, err := report.Find(path)
		if err != nil {
			problems = append(problems, err.Error())
		}
		paths = append(paths, found...)
	}
	return paths, problems
}

// events keeps a page informed.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	const alive = 15 * time.Second // between two signs of life
	w.Header().Set("Content-Type", "text/event-stream")
	change := make(chan struct{}, 1)
	s.mu.Lock()
	if s.waiting == nil {
		s.waiting = map[chan struct{}]bool{}
	}
	s.waiting[change] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, change)
		s.mu.Unlock()
	}()
	out := http.NewResponseController(w)
	send := func(text string) bool {
		_, err := fmt.Fprint(w, text)
		return err == nil && out.Flush() == nil
	}
	for ok := send(": here\n\n"); ok; {
		select {
		case <-r.Context().Done():
			return
		case <-change:
			ok = send("event: change\ndata: \n\n")
		case <-time.After(alive):
			ok = send(": here\n\n")
		}
	}
}

// watch looks at the files now and then, and tells all pages of a change.
func (s *Server) watch(ctx context.Context) {
	every := s.Every
	if every == 0 {
		every = time.Second
	}
	seen, last := s.stamp(), s.signature()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		before := seen
		if seen = s.stamp(); seen == before {
			continue
		}
		now := s.signature()
		if now == last {
			continue
		}
		last = now
		s.mu.Lock()
		for change := range s.waiting {
			select {
			case change <- struct{}{}:
			default: // it has not heard of the last one yet
			}
		}
		s.mu.Unlock()
	}
}

// stamp changes when anything in the folders does. It opens no file; signature reads
// JSON files and journals, to know whether they are results.
func (s *Server) stamp() string {
	var b strings.Builder
	for _, path := range s.Paths {
		note(&b, path)
		entries, err := os.ReadDir(path)
		for _, e := range entries {
			note(&b, filepath.Join(path, e.Name()))
		}
		fmt.Fprintln(&b, err)
	}
	return b.String()
}

// signature changes when a result does.
func (s *Server) signature() string {
	var b strings.Builder
	paths, problems := s.find()
	for _, path := range paths {
		note(&b, path)
	}
	b.WriteString(strings.Join(problems, "\n"))
	return b.String()
}

// note writes what changes when the file or folder at path does: names, modes, sizes
// and times of it and of what shows its progress.
func note(b *strings.Builder, path string) {
	for _, name := range append([]string{""}, checkpoint.SignsOfProgress...) {
		whole := filepath.Join(path, name)
		if st, err := os.Stat(whole); err == nil {
			fmt.Fprintf(b, "%s %v %d %d\n", whole, st.Mode(), st.Size(), st.ModTime().UnixNano())
		}
	}
}

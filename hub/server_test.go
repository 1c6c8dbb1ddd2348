package hub

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const testCommit = "0123456789abcdef0123456789abcdef01234567"

// fakeFile is a file of the fake hub.
type fakeFile struct {
	data []byte
	lfs  bool
}

func (f fakeFile) etag() string {
	if f.lfs {
		sum := sha256.Sum256(f.data)
		return hex.EncodeToString(sum[:])
	}
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(f.data)), f.data...))
	return hex.EncodeToString(sum[:])
}

// fakeHub speaks the hub's protocol: the list of a revision, and files that are
// served by itself or, the large ones, by another host.
type fakeHub struct {
	t        *testing.T
	hub, cdn *httptest.Server
	token    string // wanted in every request; "" wants none
	gated    bool
	files    map[string]fakeFile
	listed   []string // further names in the list

	mu       sync.Mutex
	log      []string // requests, "METHOD path range"
	statuses []int    // answers to the next requests for content
	cut      []int    // bytes after which the next contents break off
	spoil    int      // contents to be damaged
	noRange  bool
}

func newFakeHub(t *testing.T) *fakeHub {
	t.Helper()
	f := &fakeHub{t: t, files: map[string]fakeFile{
		"config.json":       {data: []byte(`{"model_type": "llama"}`)},
		"model.safetensors": {data: []byte(strings.Repeat("weights ", 100_000)), lfs: true},
		"pytorch_model.bin": {data: []byte("pickle"), lfs: true},
		"original/x.txt":    {data: []byte("x")},
		"empty.txt":         {data: nil},
	}}
	f.hub = httptest.NewServer(http.HandlerFunc(f.serveHub))
	f.cdn = httptest.NewServer(http.HandlerFunc(f.serveCDN))
	t.Cleanup(f.hub.Close)
	t.Cleanup(f.cdn.Close)
	return f
}

// variables are those that FromEnv reads.
var variables = []string{
	"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH",
	"HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
}

// client returns a client of the fake hub with a cache of its own.
func (f *fakeHub) client() *Client {
	f.t.Helper()
	for _, name := range append(slices.Clone(variables), "HTTP_PROXY", "http_proxy") {
		f.t.Setenv(name, "")
	}
	f.t.Setenv("HF_HOME", f.t.TempDir())
	f.t.Setenv("HF_ENDPOINT", f.hub.URL+"/")
	c := FromEnv()
	if c.broken != nil {
		f.t.Fatal(c.broken)
	}
	c.pause = func(int) time.Duration { return time.Millisecond }
	return c
}

func (f *fakeHub) note(r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
}

// requests returns those since the last call that begin with prefix.
func (f *fakeHub) requests(prefix string) (found []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.log {
		if strings.HasPrefix(r, prefix) {
			found = append(found, r)
		}
	}
	f.log = nil
	return found
}

func (f *fakeHub) serveHub(w http.ResponseWriter, r *http.Request) {
	f.note(r)
	refuse := func(status int, code, message string) {
		w.Header().Set("X-Error-Code", code)
		w.Header().Set("X-Error-Message", message)
		w.WriteHeader(status)
	}
	authorized := r.Header.Get("Authorization") == "Bearer "+f.token
	if f.token != "" && !authorized {
		if f.gated {
			refuse(http.StatusUnauthorized, "GatedRepo", "Access to model org/name is restricted.")
		} else {
			refuse(http.StatusUnauthorized, "RepoNotFound", "Repository not found")
		}
		return
	}
	path, dataset := strings.CutPrefix(r.URL.Path, "/datasets")
	switch {
	case strings.HasPrefix(path, "/api/models/org/name/revision/"), strings.HasPrefix(path, "/api/datasets/org/name/revision/"):
		if rev := path[strings.LastIndex(path, "/")+1:]; rev != "main" && rev != testCommit {
			refuse(http.StatusNotFound, "RevisionNotFound", "Invalid rev id")
			return
		}
		type sibling struct {
			Name string `json:"rfilename"`
			Size *int   `json:"size,omitempty"`
		}
		var list []sibling
		for name, file := range f.files {
			n := len(file.data)
			list = append(list, sibling{name, &n})
		}
		for _, name := range f.listed {
			list = append(list, sibling{Name: name})
		}
		json.NewEncoder(w).Encode(map[string]any{"id": "org/name", "sha": testCommit, "siblings": list})
	case strings.HasPrefix(path, "/org/name/resolve/"):
		_, name, _ := strings.Cut(strings.TrimPrefix(path, "/org/name/resolve/"), "/")
		file, ok := f.files[name]
		w.Header().Set("X-Repo-Commit", testCommit)
		if !ok {
			refuse(http.StatusNotFound, "EntryNotFound", "Entry not found")
			return
		}
		if !file.lfs {
			w.Header().Set("ETag", `W/"`+file.etag()+`"`)
			f.content(w, r, file.data)
			return
		}
		w.Header().Set("X-Linked-Etag", `"`+file.etag()+`"`)
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(file.data)))
		w.Header().Set("ETag", `"of-the-redirect"`)
		http.Redirect(w, r, f.cdn.URL+"/blob/"+name+"?signature=secret", http.StatusFound)
	case strings.HasPrefix(path, "/org/renamed/"), strings.HasPrefix(path, "/api/models/org/renamed/"):
		http.Redirect(w, r, strings.Replace(r.URL.Path, "/org/renamed/", "/org/name/", 1), http.StatusTemporaryRedirect)
	default:
		_ = dataset
		refuse(http.StatusNotFound, "RepoNotFound", "Repository not found")
	}
}

func (f *fakeHub) serveCDN(w http.ResponseWriter, r *http.Request) {
	f.note(r)
	if r.Header.Get("Authorization") != "" {
		f.t.Errorf("the token was sent to another host: %s %s", r.Method, r.URL)
	}
	f.content(w, r, f.files[strings.TrimPrefix(r.URL.Path, "/blob/")].data)
}

// content serves data with ranges, and with the faults that are due.
func (f *fakeHub) content(w http.ResponseWriter, r *http.Request, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodGet && len(f.statuses) > 0 {
		status := f.statuses[0]
		f.statuses = f.statuses[1:]
		if status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
	}
	from := 0
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && !f.noRange {
		if from >= len(data) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
	}
	if f.noRange {
		from = 0
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
	if w.Header().Get("Content-Range") != "" {
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == http.MethodHead {
		return
	}
	data = data[from:]
	if f.spoil > 0 && len(data) > 0 {
		f.spoil--
		data = append([]byte(nil), data...)
		data[len(data)/2] ^= 1
	}
	if len(f.cut) > 0 {
		data = data[:min(len(data), f.cut[0])]
		f.cut = f.cut[1:]
	}
	w.Write(data) // fewer bytes than Content-Length: the connection is closed
}

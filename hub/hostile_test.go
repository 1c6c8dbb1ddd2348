package hub

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/internal/golden"
)

// TestSecretsAreHidden: a server sends back, in all that crepe shows of an answer,
// the token and the password that it was sent.
func TestSecretsAreHidden(t *testing.T) {
	const token, password = "hf_AbcdEfgh", "pa55word"
	secrets := []string{token, strings.ToLower(token), token[:6], password, password[:6], base64.StdEncoding.EncodeToString([]byte("user:" + password))}
	echo := strings.Join([]string{token, password, secrets[len(secrets)-1]}, " ")
	for name, serve := range map[string]http.HandlerFunc{
		"a message": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Error-Message", strings.Repeat("x", 290)+" "+token[:4]+"\x01"+token[4:]+" "+echo)
			w.WriteHeader(http.StatusForbidden)
		},
		"a busy server's message": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Error-Message", echo)
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"a commit": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Repo-Commit", token)
			fmt.Fprintf(w, `{"sha": %q, "siblings": []}`, password)
		},
		"names": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Repo-Commit", testCommit)
			w.Header().Set("ETag", `"..`+token+`"`)
			fmt.Fprintf(w, `{"sha": %q, "siblings": [{"rfilename": "../%s"}]}`, testCommit, echo)
		},
		// Half a secret is one too.
		"a commit at whose end a secret begins": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Repo-Commit", strings.Repeat("x", 43)+token)
			w.Header().Set("ETag", `"`+strings.Repeat("!", 73)+password+`"`)
			fmt.Fprintf(w, `{"sha": %q, "siblings": []}`, strings.Repeat("x", 43)+token)
		},
		"a name at whose end a secret begins": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"sha": %q, "siblings": [{"rfilename": "../%s"}]}`, testCommit, strings.Repeat("x", 190)+token)
		},
		"a good name": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"sha": %q, "siblings": [{"rfilename": "%s.json"}]}`, testCommit, token)
		},
		"a host in small letters": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+strings.ToLower(token)+".invalid/", http.StatusFound)
		},
		"no JSON": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, echo) },
		"a host": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				http.Redirect(w, r, "http://"+token+".invalid/"+password, http.StatusFound)
				return
			}
			w.Header().Set("X-Repo-Commit", testCommit)
			w.Header().Set("ETag", `"abc"`)
		},
	} {
		f := newFakeHub(t)
		c := f.client()
		c.Token, c.Endpoint = token, strings.Replace(c.Endpoint, "://", "://user:"+password+"@", 1)
		f.hub.Config.Handler = serve
		shown := ""
		c.Notice = func(s string) { shown += s }
		for _, get := range []func() (string, error){
			func() (string, error) { return c.Model(t.Context(), testRepo) },
			func() (string, error) { return c.File(t.Context(), testRepo, "config.json") },
		} {
			_, err := get()
			if err == nil {
				t.Errorf("%s: no error", name)
				continue
			}
			shown += err.Error()
			var missing *NotCachedError
			if errors.As(err, &missing) {
				shown += missing.URL
			}
		}
		for _, s := range secrets {
			if strings.Contains(shown, s) {
				t.Errorf("%s: %q is shown in %q", name, s, shown)
			}
		}
	}
}

// Passwords may be of any bytes.
func TestRedact(t *testing.T) {
	c := &Client{Endpoint: "https://me:%ff%C3%89X(y@hub.example", Token: "hf_Ab.c"}
	for text, want := range map[string]string{
		"a HF_AB.C b hf_ab.c":     "a [hidden] b [hidden]",
		"hf_Abxc":                 "hf_Abxc",
		"\xff\xc3\x89x(y":         "[hidden]",
		"İhf_Ab.cİ \xff\xc3\x89X": "İ[hidden]İ \xff\xc3\x89X",
		"":                        "",
	} {
		if got := c.redact(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestRedirectToPlainHTTP(t *testing.T) {
	request := func(method, url string) *http.Request {
		r, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		method, from, to string
		want             error
	}{
		{"GET", "https://hub.example/x", "http://cdn.example/x", errPlainHTTP},
		{"GET", "https://hub.example/x", "http://hub.example/x", errPlainHTTP},
		{"HEAD", "https://hub.example/x", "http://hub.example/x", errPlainHTTP},
		{"GET", "https://hub.example/x", "https://cdn.example/x", nil},
		{"GET", "http://mirror.example/x", "http://cdn.example/x", nil},
		{"HEAD", "https://hub.example/x", "https://cdn.example/x", http.ErrUseLastResponse},
	} {
		if err := checkRedirect(request(c.method, c.to), []*http.Request{request(c.method, c.from)}); err != c.want {
			t.Errorf("%s from %s to %s: %v, want %v", c.method, c.from, c.to, err, c.want)
		}
	}
	if err := networkProblem(fmt.Errorf("x: %w", errPlainHTTP)); transient(err) {
		t.Error("a refused redirect is taken for a missing network, and would be asked for again")
	}
}

// TestOddParts: a server that sends another part than was asked for, or less of it, does
// not keep a file that was begun from being fetched.
func TestOddParts(t *testing.T) {
	for name, part := range map[string]func(w http.ResponseWriter, data []byte, at int){
		"without a range": func(w http.ResponseWriter, data []byte, at int) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[at:])
		},
		"from another byte on": func(w http.ResponseWriter, data []byte, at int) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at-5, len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[at-5:])
		},
		"less than was asked for": func(w http.ResponseWriter, data []byte, at int) {
			end := min(at+300_000, len(data))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, end-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[at:end])
		},
	} {
		f := newFakeHub(t)
		c := f.client()
		data := f.files["model.safetensors"].data
		blobs := filepath.Join(c.Cache, "models--org--name", "blobs")
		if err := os.MkdirAll(blobs, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(blobs, f.files["model.safetensors"].etag()+".incomplete"), data[:1000], 0o644); err != nil {
			t.Fatal(err)
		}
		f.cdn.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			at := 0
			if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at); n == 1 {
				part(w, data, at)
				return
			}
			w.Write(data)
		})
		path, err := c.File(t.Context(), testRepo, "model.safetensors")
		if err != nil || !bytes.Equal(content(t, path), data) {
			t.Errorf("a part %s: %v, or wrong content", name, err)
		}
	}
}

// TestLinkForAPartialFile: what it leads to is left alone.
func TestLinkForAPartialFile(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	data := f.files["model.safetensors"]
	blobs, victim := filepath.Join(c.Cache, "models--org--name", "blobs"), filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.MkdirAll(blobs, 0o755), os.WriteFile(victim, []byte("precious"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(blobs, data.etag()+".incomplete")); err != nil {
		t.Skip(err)
	}
	path, err := c.File(t.Context(), testRepo, "model.safetensors")
	if err != nil || !bytes.Equal(content(t, path), data.data) || string(content(t, victim)) != "precious" {
		t.Errorf("%v, or wrong content, or the file behind the link was written to", err)
	}
}

// TestSizes: what the hub says of a file holds for the cache and for a body without
// a length.
func TestSizes(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	dir, err := c.Snapshot(t.Context(), testRepo, ModelFiles)
	if err != nil {
		t.Fatal(err)
	}
	weights := f.files["model.safetensors"]
	blob := filepath.Join(c.Cache, "models--org--name", "blobs", weights.etag())
	if err := os.Truncate(blob, 1000); err != nil { // as a full disk or a copy leaves it
		t.Fatal(err)
	}
	notices := ""
	c.Notice = func(s string) { notices += s }
	if _, err := c.Snapshot(t.Context(), testRepo, ModelFiles); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, filepath.Join(dir, "model.safetensors")), weights.data) || !strings.Contains(notices, "model.safetensors: 1000 bytes in the cache, but 800000 on the hub") {
		t.Errorf("the truncated blob was kept, or nothing was said: %q", notices)
	}

	for name, serve := range map[string]http.HandlerFunc{
		"no length at all": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Repo-Commit", testCommit)
			w.Header().Set("ETag", `"abc"`)
			if r.Method == http.MethodHead {
				w.Header().Set("Transfer-Encoding", "chunked")
				return
			}
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
		"a length that is too large": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Repo-Commit", testCommit)
			w.Header().Set("ETag", `"abc"`)
			if r.Method == http.MethodHead {
				w.Header().Set("Transfer-Encoding", "chunked")
				return
			}
			w.Header().Set("Content-Length", "1099511627776")
			w.Write(make([]byte, 1<<20))
		},
	} {
		c := f.client()
		f.hub.Config.Handler = serve
		if _, err := c.File(t.Context(), testRepo, "config.json"); !errors.Is(err, errOtherSize) {
			t.Errorf("%s: %v, want %v", name, err, errOtherSize)
		}
	}
}

// TestEqualETags: a server gives two files one etag that is no checksum.
func TestEqualETags(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	f.hub.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Repo-Commit", testCommit)
		w.Header().Set("ETag", `"abc"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(filepath.Base(r.URL.Path)))
	})
	for _, name := range []string{"a.json", "b.json"} {
		path, err := c.File(t.Context(), testRepo, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); string(got) != name {
			t.Errorf("%s holds %q", name, got)
		}
	}
}

// TestPartOfAnotherFile: what an interrupted download left is of another file, which
// shows in the size, or only in the checksum.
func TestPartOfAnotherFile(t *testing.T) {
	f := newFakeHub(t)
	file := f.files["model.safetensors"]
	c := f.client()
	incomplete := filepath.Join(c.Cache, "models--org--name", "blobs", file.etag()+".incomplete")
	if err := os.MkdirAll(filepath.Dir(incomplete), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string][]byte{
		"a part": bytes.Repeat([]byte("x"), 1000), "as long as the whole": bytes.Repeat([]byte("x"), len(file.data)),
	} {
		if err := os.WriteFile(incomplete, part, 0o644); err != nil {
			t.Fatal(err)
		}
		path, err := c.File(t.Context(), testRepo, "model.safetensors")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(content(t, path), file.data) {
			t.Errorf("%s: wrong content", name)
		}
		if err := errors.Join(os.Remove(path), os.Remove(strings.TrimSuffix(incomplete, ".incomplete"))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestModelWithoutSafetensors(t *testing.T) {
	for name, want := range map[string]string{"pytorch_model.bin": "pytorch_model.bin", "model-Q4_K_M.gguf": "model-Q4_K_M.gguf", "README.md": "no weights in it"} {
		f := newFakeHub(t)
		f.files = map[string]fakeFile{"config.json": f.files["config.json"], name: {data: []byte("x"), lfs: true}}
		_, err := f.client().Model(t.Context(), testRepo)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "org/name") {
			t.Errorf("%s: %v, want %q in it", name, err, want)
		}
		if got := f.requests("GET /org"); len(got) != 0 {
			t.Errorf("%s: %v was fetched", name, got)
		}
	}
}

func TestIncompleteCache(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	dir, err := c.Model(t.Context(), testRepo)
	if err != nil {
		t.Fatal(err)
	}
	c.Offline = true
	if got, err := c.Model(t.Context(), testRepo); err != nil || got != dir {
		t.Errorf("a whole copy: %s, %v", got, err)
	}
	if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	wantMissing := func(what, file string) {
		t.Helper()
		var missing *NotCachedError
		_, err := c.Model(t.Context(), testRepo)
		if !errors.As(err, &missing) || missing.Path != file || !strings.Contains(err.Error(), "the cached copy is incomplete: "+file) {
			t.Errorf("%s: %v, want one that misses %s", what, err, file)
		}
	}
	wantMissing("no weights", "model.safetensors")
	index := `{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}`
	for name, text := range map[string]string{"model.safetensors.index.json": index, "model-00001-of-00002.safetensors": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wantMissing("one of two shards", "model-00002-of-00002.safetensors")
	c.Offline = false
	f.hub.Close()
	wantMissing("no network", "model-00002-of-00002.safetensors")
}

// FuzzList reads any text as a hub's list of files: none leaves the folder, or does
// anything to a terminal.
func FuzzList(f *testing.F) {
	f.Add([]byte(`{"sha": "0123456789abcdef0123456789abcdef01234567", "siblings": [{"rfilename": "config.json", "size": 3}, {"rfilename": "a/b.safetensors"}]}`))
	f.Add([]byte(`{"sha": "0123456789abcdef0123456789abcdef01234567", "siblings": [{"rfilename": "a/../b", "size": -1}, {}, null]}`))
	f.Add([]byte(`{"sha": null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var files map[string]int64
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(data)), func() { _, files, err = (&Client{}).parseList(data) })
		if err != nil {
			return
		}
		for name, size := range files {
			if !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x1b\n") || size < -1 {
				t.Errorf("%q of %d bytes", name, size)
			}
		}
	})
}

// FuzzParseRepo: what is taken stays one folder of the cache, and prints as it was.
func FuzzParseRepo(f *testing.F) {
	for _, s := range []string{"org/name", "org/name@refs/pr/1", "a/..", "a/b@../c", "a--b/c", "a/b@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var r Repo
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(s)), func() { r, err = ParseRepo(s) })
		if err != nil {
			return
		}
		if folder := r.folder(); filepath.Base(folder) != folder || !filepath.IsLocal(filepath.FromSlash(r.revision())) {
			t.Errorf("%q: folder %q, revision %q", s, folder, r.revision())
		}
		if again, err := ParseRepo(r.String()); err != nil || again != r {
			t.Errorf("%q prints as %s, which is %v, %v", s, r, again, err)
		}
	})
}

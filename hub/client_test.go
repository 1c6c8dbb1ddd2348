package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var testRepo = Repo{Model, "org/name", "main"}

func TestParseRepo(t *testing.T) {
	for s, want := range map[string]Repo{
		"org/name":              {Model, "org/name", "main"},
		"meta-llama/Llama-2-7b": {Model, "meta-llama/Llama-2-7b", "main"},
		"org/name@v1.0":         {Model, "org/name", "v1.0"},
		"org/name@refs/pr/1":    {Model, "org/name", "refs/pr/1"},
		"a/b@" + testCommit:     {Model, "a/b", testCommit},
	} {
		if got, err := ParseRepo(s); err != nil || got != want {
			t.Errorf("ParseRepo(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "name", "/name", "org/", "a/b/c", "../x", "org/..", "org/na me", "org/-x", "a--b/c",
		"org/name@", "org/name@../../x", "org/name@/etc", "org/name@a//b", "org/name@a\\b", "./model", "~/model"} {
		if got, err := ParseRepo(s); err == nil {
			t.Errorf("ParseRepo(%q) = %v, want an error", s, got)
		}
	}
}

// setenv sets all variables that FromEnv reads, those not given to "".
func setenv(t *testing.T, values map[string]string) {
	t.Helper()
	for _, name := range append(slices.Clone(variables), "HF_HOME") {
		t.Setenv(name, values[name])
	}
}

// TestFromEnv: as huggingface_hub 2.4 reads its environment.
func TestFromEnv(t *testing.T) {
	home := t.TempDir()
	for name, text := range map[string]string{"token": "hf_file\n", "other": "hf_other"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(home, name) }
	t.Setenv("CREPE_TEST_HOME", home)
	type env = map[string]string
	for _, c := range []struct {
		env                    env
		cache, token, endpoint string
		offline                bool
	}{
		{env{"HF_HOME": home}, in("hub"), "hf_file", "https://huggingface.co", false},
		{env{"HF_HOME": "$CREPE_TEST_HOME"}, in("hub"), "hf_file", "https://huggingface.co", false},
		{env{"HF_HOME": home, "HF_TOKEN": "hf_env", "HF_HUB_CACHE": in("a"), "HF_HUB_OFFLINE": "yes", "HF_ENDPOINT": "https://mirror.example/hf/"},
			in("a"), "hf_env", "https://mirror.example/hf", true},
		{env{"HF_HOME": home, "HUGGINGFACE_HUB_CACHE": in("b"), "HUGGING_FACE_HUB_TOKEN": "hf_old", "TRANSFORMERS_OFFLINE": "1"},
			in("b"), "hf_old", "https://huggingface.co", true},
		{env{"HF_HOME": home, "HUGGINGFACE_HUB_CACHE": in("b"), "HF_HUB_CACHE": in("a"), "HF_TOKEN_PATH": in("other"), "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
			in("a"), "hf_other", "https://huggingface.co", false},
		{env{"HF_HOME": home, "HF_TOKEN_PATH": in("absent")}, in("hub"), "", "https://huggingface.co", false},
	} {
		setenv(t, c.env)
		got := FromEnv()
		if got.broken != nil || got.Cache != c.cache || got.Token != c.token || got.Endpoint != c.endpoint || got.Offline != c.offline {
			t.Errorf("%v: %+v, want %+v", c.env, got, c)
		}
	}
}

// What is wrong with the environment is said by the first call that needs it, and
// without what is secret in it.
func TestBrokenEnvironment(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "token"), 0o700); err != nil {
		t.Fatal(err)
	}
	type env = map[string]string
	for _, c := range []struct {
		env  env
		want string
	}{
		{env{"HF_HOME": home, "HF_TOKEN": "two\nsecret"}, "HF_TOKEN"},
		{env{"HF_HOME": home, "HF_TOKEN": "hf", "HF_ENDPOINT": "user:secret@mirror.example"}, "HF_ENDPOINT"},
		{env{"HF_HOME": home, "HF_TOKEN": "hf", "HF_ENDPOINT": "ftp://user:secret@mirror.example"}, "HF_ENDPOINT"},
		{env{"HF_HOME": home}, "token: a folder"},
	} {
		setenv(t, c.env)
		client := FromEnv()
		_, err := client.Model(t.Context(), testRepo)
		_, ferr := client.File(t.Context(), testRepo, "config.json")
		for _, err := range []error{err, ferr} {
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v: %v, want %s in it and no secret", c.env, err, c.want)
			}
		}
	}
}

// content returns what the file holds.
func content(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSnapshotFetchesOnceIntoTheCacheLayout(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	var last string
	c.Progress = func(file string, done, total int64) { last = fmt.Sprint(file, done, total) }
	dir, err := c.Snapshot(context.Background(), testRepo, func(p string) bool { return p == "model.safetensors" || p == "empty.txt" || p == "original/x.txt" })
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(c.Cache, "models--org--name", "snapshots", testCommit); dir != want {
		t.Errorf("Snapshot = %s, want %s", dir, want)
	}
	weights := f.files["model.safetensors"]
	if !bytes.Equal(content(t, filepath.Join(dir, "model.safetensors")), weights.data) {
		t.Error("wrong content")
	}
	if got := content(t, filepath.Join(c.Cache, "models--org--name", "refs", "main")); string(got) != testCommit {
		t.Errorf("refs/main = %q", got)
	}
	if !bytes.Equal(content(t, filepath.Join(c.Cache, "models--org--name", "blobs", weights.etag())), weights.data) {
		t.Error("wrong blob")
	}
	if target, err := os.Readlink(filepath.Join(dir, "original", "x.txt")); runtime.GOOS != "windows" &&
		(err != nil || target != filepath.Join("..", "..", "..", "blobs", f.files["original/x.txt"].etag())) {
		t.Errorf("link to %q, %v", target, err)
	}
	if exists(filepath.Join(dir, "config.json")) {
		t.Error("a file was fetched that was not wanted")
	}
	if want := fmt.Sprint("model.safetensors", len(weights.data), len(weights.data)); !strings.HasPrefix(last, "original") && last != want {
		t.Errorf("last progress %q, want %q", last, want)
	}
	f.requests("")
	if _, err := c.Snapshot(context.Background(), testRepo, func(p string) bool { return p == "model.safetensors" }); err != nil {
		t.Fatal(err)
	}
	if got := f.requests(""); len(got) != 1 || !strings.HasPrefix(got[0], "GET /api/models/org/name/revision/main") {
		t.Errorf("a cached snapshot asked for %v, want the list alone", got)
	}
}

func TestModelFiles(t *testing.T) {
	for path, want := range map[string]bool{"config.json": true, "model-00001-of-00002.safetensors": true, "README.md": true, "tokenizer.model": true,
		"pytorch_model.bin": false, "pytorch_model.bin.index.json": false, "original/params.json": false, "consolidated.00.pth": false, "consolidated.safetensors": false, "x.gguf": false} {
		if ModelFiles(path) != want {
			t.Errorf("ModelFiles(%q) = %v", path, !want)
		}
	}
}

func TestFileOfADatasetAndOfARenamedRepository(t *testing.T) {
	f := newFakeHub(t)
	f.token = "hf_secret"
	c := f.client()
	c.Token = "hf_secret"
	path, err := c.File(context.Background(), Repo{Dataset, "org/name", ""}, "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(c.Cache, "datasets--org--name", "snapshots", testCommit, "model.safetensors"); path != want {
		t.Errorf("File = %s, want %s", path, want)
	}
	if _, err := c.File(context.Background(), Repo{Model, "org/renamed", ""}, "config.json"); err != nil {
		t.Error(err)
	}
	if _, err := c.Snapshot(context.Background(), Repo{Model, "org/renamed", ""}, nil); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	f := newFakeHub(t)
	f.token = "hf_good"
	for _, tc := range []struct {
		token, path string
		repo        Repo
		gated       bool
		want        []string
	}{
		{"", "config.json", testRepo, true, []string{"licence", f.hub.URL + "/org/name", "HF_TOKEN"}},
		{"hf_bad", "config.json", testRepo, true, []string{"licence", "HF_TOKEN"}},
		{"", "config.json", testRepo, false, []string{"no such repository", "HF_TOKEN"}},
		{"hf_good", "missing.json", testRepo, false, []string{"no file missing.json"}},
		{"hf_good", "config.json", Repo{Model, "org/unknown", ""}, false, []string{"no such repository", "org/unknown"}},
		{"hf_good", "", Repo{Model, "org/name", "v9"}, false, []string{"no revision v9"}},
		{"hf_good", "../config.json", testRepo, false, []string{"bad file name"}},
	} {
		c := f.client()
		c.Token, f.gated = tc.token, tc.gated
		var err error
		if tc.path == "" {
			_, err = c.Snapshot(context.Background(), tc.repo, nil)
		} else {
			_, err = c.File(context.Background(), tc.repo, tc.path)
		}
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q in it", tc, err, want)
			}
		}
		if err != nil && (strings.Contains(err.Error(), "hf_") || strings.Contains(err.Error(), "signature")) {
			t.Errorf("the error gives away a secret: %v", err)
		}
	}
}

func TestHostileNames(t *testing.T) {
	for _, name := range []string{"../../../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "a//b", "", ".", "x\x00y", "x\x1b[2Jy.json", "x\ny", "\u202egpj.json"} {
		f := newFakeHub(t)
		f.listed = []string{name}
		c := f.client()
		_, err := c.Snapshot(context.Background(), testRepo, nil)
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%q: err = %v, want it refused", name, err)
		}
		if got := f.requests("HEAD"); len(got) != 0 {
			t.Errorf("%q: %v was asked for", name, got)
		}
	}
}

func TestHostileHeaders(t *testing.T) {
	for _, head := range []map[string]string{
		{"X-Repo-Commit": "../../../x", "ETag": `"abc"`},
		{"X-Repo-Commit": testCommit, "ETag": `"../../x"`},
		{"X-Repo-Commit": testCommit},
		{"ETag": `"abc"`},
	} {
		f := newFakeHub(t)
		c := f.client()
		f.hub.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for k, v := range head {
				w.Header().Set(k, v)
			}
		})
		if _, err := c.File(context.Background(), testRepo, "config.json"); err == nil || !strings.Contains(err.Error(), "not the answer of a hub") {
			t.Errorf("%v: err = %v", head, err)
		}
	}
}

func TestOffline(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	ctx := context.Background()
	c.Offline = true
	var missing *NotCachedError
	if _, err := c.Snapshot(ctx, testRepo, nil); !errors.As(err, &missing) || !strings.Contains(err.Error(), c.Cache) || !strings.Contains(err.Error(), "HF_HUB_OFFLINE") {
		t.Errorf("Snapshot: %v", err)
	}
	if _, err := c.File(ctx, testRepo, "config.json"); !errors.As(err, &missing) || missing.URL != f.hub.URL+"/org/name/resolve/main/config.json" {
		t.Errorf("File: %v", err)
	}
	if got := f.requests(""); len(got) != 0 {
		t.Errorf("offline asked for %v", got)
	}

	c.Offline = false
	want, err := c.Snapshot(ctx, testRepo, ModelFiles)
	if err != nil {
		t.Fatal(err)
	}
	f.requests("")
	c.Offline = true
	if got, err := c.Snapshot(ctx, testRepo, ModelFiles); err != nil || got != want {
		t.Errorf("cached Snapshot = %s, %v, want %s", got, err, want)
	}
	if got, err := c.File(ctx, testRepo, "config.json"); err != nil || got != filepath.Join(want, "config.json") {
		t.Errorf("cached File = %s, %v", got, err)
	}
	if got := f.requests(""); len(got) != 0 {
		t.Errorf("offline asked for %v", got)
	}
}

func TestUnreachableHubFallsBackToTheCache(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	ctx := context.Background()
	want, err := c.Snapshot(ctx, testRepo, ModelFiles)
	if err != nil {
		t.Fatal(err)
	}
	f.hub.Close()
	notices := ""
	c.Notice = func(s string) { notices += s }
	if got, err := c.Snapshot(ctx, testRepo, ModelFiles); err != nil || got != want {
		t.Errorf("Snapshot = %s, %v, want %s", got, err, want)
	}
	if got, err := c.File(ctx, testRepo, "config.json"); err != nil || got != filepath.Join(want, "config.json") {
		t.Errorf("File = %s, %v", got, err)
	}
	if strings.Count(notices, "cached") != 2 {
		t.Errorf("notices %q, want two about the cached copy", notices)
	}
	var missing *NotCachedError
	if _, err := c.File(ctx, testRepo, "other"); !errors.As(err, &missing) || missing.Err == nil {
		t.Errorf("File of what is not cached: %v", err)
	}
}

func TestCommitNeedsNoNetwork(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	if _, err := c.File(context.Background(), testRepo, "config.json"); err != nil {
		t.Fatal(err)
	}
	f.hub.Close()
	if _, err := c.File(context.Background(), Repo{Model, "org/name", testCommit}, "config.json"); err != nil {
		t.Error(err)
	}
}

func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts connections and says nothing
	f := newFakeHub(t)
	c := f.client()
	c.Endpoint = "http://" + l.Addr().String()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.File(ctx, testRepo, "config.json"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestReadOnlyCache(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	c.Cache = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(c.Cache, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.File(context.Background(), testRepo, "config.json"); err == nil || !strings.Contains(err.Error(), c.Cache) {
		t.Errorf("err = %v, want one that names %s", err, c.Cache)
	}
}

package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/crepe-llm/crepe/internal/regular"
)

// Client reads repositories. FromEnv makes one; its fields may be changed
// before the first call, and its methods called from several goroutines after.
type Client struct {
	Endpoint string // URL without a trailing slash
	Cache    string // folder of the models--… and datasets--… folders
	Token    string // "" is anonymous
	Offline  bool   // nothing is asked of the network

	// Progress, if not nil, is called while file is being fetched, with bytes
	// of it on disk and in all (−1 if the server does not say).
	Progress func(file string, done, total int64)
	// Notice, if not nil, is told of what was overcome: a request that is
	// repeated, a cached copy used because the hub cannot be reached.
	Notice func(message string)

	http   *http.Client
	pause  func(attempt int) time.Duration // before attempt+1
	broken error                           // what is wrong with the environment
}

// FromEnv returns the client that the environment describes. What is wrong with
// the environment is the error of the first call that asks for something: with a
// model and a text on disk none does.
func FromEnv() *Client {
	c := &Client{
		Endpoint: strings.TrimRight(envOr("HF_ENDPOINT", "https://huggingface.co"), "/"),
		Offline:  isTrue(envOr("HF_HUB_OFFLINE", os.Getenv("TRANSFORMERS_OFFLINE"))),
		http:     newHTTP(),
		pause:    func(attempt int) time.Duration { return time.Second << (attempt - 1) },
	}
	var home string
	if home, c.broken = homeFolder(); c.broken != nil {
		return c
	}
	c.Cache = expand(envOr("HF_HUB_CACHE", envOr("HUGGINGFACE_HUB_CACHE", filepath.Join(home, "hub"))))
	if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		c.broken = errors.New("HF_ENDPOINT: not an http or https URL") // which may hold a password
		return c
	}
	c.Token, c.broken = readToken(home)
	return c
}

// homeFolder is $HF_HOME, by default huggingface in the user's cache folder,
// which is ~/.cache on every system.
func homeFolder() (string, error) {
	if dir := os.Getenv("HF_HOME"); dir != "" {
		return expand(dir), nil
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(expand(dir), "huggingface"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the hub's cache: %w: set HF_HOME", err)
	}
	return filepath.Join(user, ".cache", "huggingface"), nil
}

const maxToken = 64 << 10 // bytes of a file with a token, or of a ref

// readToken is $HF_TOKEN, else the content of $HF_TOKEN_PATH or $HF_HOME/token,
// else "".
func readToken(home string) (string, error) {
	from, token := "HF_TOKEN", os.Getenv("HF_TOKEN")
	if strings.TrimSpace(token) == "" {
		from, token = "HUGGING_FACE_HUB_TOKEN", os.Getenv("HUGGING_FACE_HUB_TOKEN")
	}
	if strings.TrimSpace(token) == "" {
		from = expand(envOr("HF_TOKEN_PATH", filepath.Join(home, "token")))
		data, err := regular.Read(from, maxToken)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("hub token: %w", err)
		}
		token = string(data)
	}
	token = strings.TrimSpace(token)
	if strings.ContainsFunc(token, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' }) {
		return "", fmt.Errorf("hub token from %s: it holds characters that no token has", from)
	}
	return token, nil
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// expand replaces ~ and $VARIABLES in a folder's name, as Python does: what is not
// set stays as it is.
func expand(dir string) string {
	dir = expandHome(dir)
	if !strings.Contains(dir, "$") {
		return dir
	}
	return os.Expand(dir, func(name string) string {
		if v, ok := os.LookupEnv(name); ok {
			return v
		}
		return "$" + name
	})
}

func expandHome(dir string) string {
	if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
		if user, err := os.UserHomeDir(); err == nil {
			return filepath.Join(user, rest)
		}
	}
	return dir
}

// isTrue reads a switch as huggingface_hub does.
func isTrue(v string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(v))
}

// NotCachedError is the error for what is not in the cache and cannot be
// fetched.
type NotCachedError struct {
	Repo  Repo
	Path  string // file in the repository; "" is the whole of it
	Cache string // folder that was looked into
	URL   string // where Path, or the repository, can be had
	Err   error  // why the hub was not reached; nil: HF_HUB_OFFLINE
	Part  bool   // other files of the repository are in the cache
}

func (e *NotCachedError) Error() string {
	what := ""
	if e.Path != "" {
		what = e.Path + " "
	}
	if e.Part {
		what = "the cached copy is incomplete: " + what
	}
	why := "HF_HUB_OFFLINE is set"
	if e.Err != nil {
		why = "the hub cannot be reached: " + e.Err.Error()
	}
	return fmt.Sprintf("hub %s %s: %snot in the cache %s, and %s", e.Repo.Kind, e.Repo, what, e.Cache, why)
}

func (e *NotCachedError) Unwrap() error { return e.Err }

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Snapshot returns the folder with the files of r that want admits (nil: all of
// them), after fetching those that the cache lacks. Where the hub cannot be
// reached, it is what the cache holds.
func (c *Client) Snapshot(ctx context.Context, r Repo, want func(path string) bool) (string, error) {
	dir, err := c.snapshot(ctx, r, want, nil, nil)
	return dir, c.redacted(err)
}

// Model is Snapshot of the files that a model is read from. A repository that
// holds none in safetensors is refused before anything is fetched, and a cached
// copy that lacks some where the hub cannot be reached.
func (c *Client) Model(ctx context.Context, r Repo) (string, error) {
	dir, err := c.snapshot(ctx, r, ModelFiles, checkWeights, missingFile)
	return dir, c.redacted(err)
}

// snapshot is Snapshot. check, if not nil, may refuse the repository by its files,
// and missing names what a cached copy of it lacks.
func (c *Client) snapshot(ctx context.Context, r Repo, want func(path string) bool, check func(files []string) error, missing func(dir string) string) (string, error) {
	if err := cmp.Or(c.broken, r.validate()); err != nil {
		return "", err
	}
	if c.Offline {
		return c.fromCache(r, missing, nil)
	}
	commit, files, err := c.list(ctx, r)
	if err != nil {
		if ctx.Err() != nil || !transient(err) {
			return "", fmt.Errorf("hub %s %s: %w", r.Kind, r, err)
		}
		cached, cerr := c.fromCache(r, missing, err)
		if cerr == nil {
			c.notice("hub %s %s: cannot be reached, using the cached copy %s: %v", r.Kind, r, cached, err)
		}
		return cached, cerr
	}
	if check != nil {
		if err := check(slices.Sorted(maps.Keys(files))); err != nil {
			return "", fmt.Errorf("hub %s %s: %w", r.Kind, r, err)
		}
	}
	if want != nil {
		maps.DeleteFunc(files, func(path string, _ int64) bool { return !want(path) })
	}
	if len(files) == 0 {
		return "", fmt.Errorf("hub %s %s: none of its files is of use here", r.Kind, r)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if _, err := c.fetch(ctx, r, commit, path, files[path], nil); err != nil {
			return "", err
		}
	}
	if err := c.writeRef(r, commit); err != nil {
		return "", err
	}
	return filepath.Join(c.root(r), "snapshots", commit), nil
}

// fromCache returns the cached copy of r, if it is whole. err says why the hub
// cannot be reached.
func (c *Client) fromCache(r Repo, missing func(dir string) string, err error) (string, error) {
	dir, ok := c.cachedSnapshot(r)
	if !ok {
		return "", c.notCached(r, "", err)
	}
	if missing != nil {
		if path := missing(dir); path != "" {
			e := c.notCached(r, path, err)
			e.Part = true
			return "", e
		}
	}
	return dir, nil
}

// File returns one file of r, after fetching it if the cache lacks it. Where
// the hub cannot be reached, it is what the cache holds.
func (c *Client) File(ctx context.Context, r Repo, path string) (string, error) {
	local, err := c.file(ctx, r, path)
	return local, c.redacted(err)
}

func (c *Client) file(ctx context.Context, r Repo, path string) (string, error) {
	if err := cmp.Or(c.broken, r.validate()); err != nil {
		return "", err
	}
	if !safePath(path) {
		return "", fmt.Errorf("hub %s %s: bad file name %q", r.Kind, r, path)
	}
	cached, haveCached := "", false
	if dir, ok := c.cachedSnapshot(r); ok {
		cached = filepath.Join(dir, filepath.FromSlash(path))
		haveCached = exists(cached)
	}
	switch {
	case haveCached && (c.Offline || commitHash.MatchString(r.revision())):
		return cached, nil
	case c.Offline:
		return "", c.notCached(r, path, nil)
	}
	m, err := c.head(ctx, r, r.revision(), path)
	if err != nil {
		if ctx.Err() != nil || !transient(err) {
			return "", fmt.Errorf("hub %s %s: %w", r.Kind, r, err)
		}
		if !haveCached {
			return "", c.notCached(r, path, err)
		}
		c.notice("hub %s %s: cannot be reached, using the cached %s: %v", r.Kind, r, cached, err)
		return cached, nil
	}
	local, err := c.fetch(ctx, r, m.commit, path, m.size, &m)
	if err != nil {
		return "", err
	}
	return local, c.writeRef(r, m.commit)
}

func (c *Client) notCached(r Repo, path string, err error) *NotCachedError {
	e := &NotCachedError{Repo: r, Path: path, Cache: c.Cache, URL: c.redact(c.page(r)), Err: c.redacted(err)}
	if path != "" {
		e.URL = c.URL(r, path)
	}
	return e
}

func (c *Client) notice(format string, args ...any) {
	if c.Notice != nil {
		c.Notice(c.redact(fmt.Sprintf(format, args...)))
	}
}

// URL is where a file of r can be had, for people: without a password.
func (c *Client) URL(r Repo, path string) string {
	return c.redact(c.resolveURL(r, r.revision(), path))
}

// root is the folder of r in the cache.
func (c *Client) root(r Repo) string { return filepath.Join(c.Cache, r.folder()) }

// cachedSnapshot is the snapshot of r in the cache, whatever it holds.
func (c *Client) cachedSnapshot(r Repo) (string, bool) {
	commit := r.revision()
	if !commitHash.MatchString(commit) {
		ref, err := regular.Read(c.refFile(r), maxToken)
		if err != nil {
			return "", false
		}
		if commit = strings.TrimSpace(string(ref)); !commitHash.MatchString(commit) {
			return "", false
		}
	}
	dir := filepath.Join(c.root(r), "snapshots", commit)
	return dir, exists(dir)
}

func (c *Client) refFile(r Repo) string {
	return filepath.Join(c.root(r), "refs", filepath.FromSlash(r.revision()))
}

// writeRef records that the revision of r stands for commit.
func (c *Client) writeRef(r Repo, commit string) error {
	if r.revision() == commit {
		return nil
	}
	file := c.refFile(r)
	if old, err := regular.Read(file, maxToken); err == nil && string(old) == commit {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("hub cache: %w", err)
	}
	return replace(file, func(tmp string) error { return os.WriteFile(tmp, []byte(commit), 0o644) })
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
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

	http  *http.Client
	pause func(attempt int) time.Duration // before attempt+1
}

// FromEnv returns the client that the environment describes.
func FromEnv() (*Client, error) {
	home, err := homeFolder()
	if err != nil {
		return nil, err
	}
	c := &Client{
		Endpoint: strings.TrimRight(envOr("HF_ENDPOINT", "https://huggingface.co"), "/"),
		Cache:    expandHome(envOr("HF_HUB_CACHE", filepath.Join(home, "hub"))),
		Offline:  isTrue(os.Getenv("HF_HUB_OFFLINE")),
		http:     newHTTP(),
		pause:    func(attempt int) time.Duration { return time.Second << (attempt - 1) },
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("HF_ENDPOINT %q: want an http or https URL", c.Endpoint)
	}
	if c.Token, err = readToken(home); err != nil {
		return nil, err
	}
	return c, nil
}

// homeFolder is $HF_HOME, by default huggingface in the user's cache folder,
// which is ~/.cache on every system.
func homeFolder() (string, error) {
	if dir := os.Getenv("HF_HOME"); dir != "" {
		return expandHome(dir), nil
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(expandHome(dir), "huggingface"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the hub's cache: %w: set HF_HOME", err)
	}
	return filepath.Join(user, ".cache", "huggingface"), nil
}

// readToken is $HF_TOKEN, else the content of $HF_HOME/token, else "".
func readToken(home string) (string, error) {
	from, token := "HF_TOKEN", os.Getenv("HF_TOKEN")
	if strings.TrimSpace(token) == "" {
		from = filepath.Join(home, "token")
		data, err := os.ReadFile(from)
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
}

func (e *NotCachedError) Error() string {
	what := ""
	if e.Path != "" {
		what = e.Path + " "
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
	if err := r.validate(); err != nil {
		return "", err
	}
	cached, haveCached := c.cachedSnapshot(r)
	if c.Offline && !haveCached {
		return "", c.notCached(r, "", nil)
	}
	if c.Offline {
		return cached, nil
	}
	commit, files, err := c.list(ctx, r)
	if err != nil {
		if ctx.Err() != nil || !transient(err) {
			return "", fmt.Errorf("hub %s %s: %w", r.Kind, r, err)
		}
		if !haveCached {
			return "", c.notCached(r, "", err)
		}
		c.notice("hub %s %s: cannot be reached, using the cached copy %s: %v", r.Kind, r, cached, err)
		return cached, nil
	}
	if want != nil {
		files = slices.DeleteFunc(files, func(path string) bool { return !want(path) })
	}
	if len(files) == 0 {
		return "", fmt.Errorf("hub %s %s: none of its files is of use here", r.Kind, r)
	}
	for _, path := range files {
		if _, err := c.fetch(ctx, r, commit, path, nil); err != nil {
			return "", err
		}
	}
	if err := c.writeRef(r, commit); err != nil {
		return "", err
	}
	return filepath.Join(c.root(r), "snapshots", commit), nil
}

// File returns one file of r, after fetching it if the cache lacks it. Where
// the hub cannot be reached, it is what the cache holds.
func (c *Client) File(ctx context.Context, r Repo, path string) (string, error) {
	if err := r.validate(); err != nil {
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
	local, err := c.fetch(ctx, r, m.commit, path, &m)
	if err != nil {
		return "", err
	}
	return local, c.writeRef(r, m.commit)
}

func (c *Client) notCached(r Repo, path string, err error) error {
	e := &NotCachedError{Repo: r, Path: path, Cache: c.Cache, URL: c.page(r), Err: err}
	if path != "" {
		e.URL = c.URL(r, path)
	}
	return e
}

func (c *Client) notice(format string, args ...any) {
	if c.Notice != nil {
		c.Notice(fmt.Sprintf(format, args...))
	}
}

// URL is where a file of r can be had.
func (c *Client) URL(r Repo, path string) string { return c.resolveURL(r, r.revision(), path) }

// root is the folder of r in the cache.
func (c *Client) root(r Repo) string { return filepath.Join(c.Cache, r.folder()) }

// cachedSnapshot is the snapshot of r in the cache, whatever it holds.
func (c *Client) cachedSnapshot(r Repo) (string, bool) {
	commit := r.revision()
	if !commitHash.MatchString(commit) {
		ref, err := os.ReadFile(c.refFile(r))
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
	if old, err := os.ReadFile(file); err == nil && string(old) == commit {
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

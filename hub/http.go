package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/crepe-llm/crepe/internal/pyjson"
)

const (
	dialTimeout   = 10 * time.Second
	headerTimeout = 30 * time.Second
	stallTimeout  = 60 * time.Second // without a byte of a body
	maxRetryAfter = 60 * time.Second // a longer wait that a server asks for is not waited
	maxAttempts   = 5
	maxListing    = 64 << 20 // bytes of a repository's list of files
)

func newHTTP() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = headerTimeout
	return &http.Client{Transport: t, CheckRedirect: checkRedirect}
}

// errPlainHTTP stops a redirect by which anybody on the way could read and change
// what is fetched.
var errPlainHTTP = errors.New("redirected from https to plain http, which is refused")

// checkRedirect keeps the token from every host but the one it is for; Go's own
// rule would pass it on to other ports and to subdomains. A HEAD stops at the
// hub's own answer, which describes the file that it refers to elsewhere.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errPlainHTTP
	}
	same := req.URL.Host == first.Host && (req.URL.Scheme == first.Scheme || req.URL.Scheme == "https")
	if !same {
		if req.Method == http.MethodHead {
			return http.ErrUseLastResponse
		}
		req.Header.Del("Authorization")
	}
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	return nil
}

// statusError is an answer of the hub that is not what was asked for.
type statusError struct {
	status     int
	code       string // X-Error-Code: GatedRepo, RepoNotFound, …
	message    string // X-Error-Message
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("status %d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		s += ": " + e.message
	}
	return s
}

// do sends a request and returns an answer of status 200, 206 or, for HEAD, a
// redirect.
func (c *Client) do(ctx context.Context, method, url string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "crepe")
	req.Header.Set("Accept-Encoding", "identity") // sizes and ranges are those of the file
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, networkProblem(err)
	}
	redirect := method == http.MethodHead && resp.StatusCode/100 == 3
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent || redirect {
		return resp, nil
	}
	resp.Body.Close()
	e := &statusError{status: resp.StatusCode, code: resp.Header.Get("X-Error-Code"), message: c.printable(resp.Header.Get("X-Error-Message"))}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		const year = 365 * 24 * 3600
		e.retryAfter = time.Duration(min(s, year)) * time.Second
	}
	return nil, e
}

// printable is s without control characters and secrets, and cut to a line's length.
func (c *Client) printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	s = c.redact(s)
	return strings.ToValidUTF8(s[:min(len(s), 300)], "")
}

// networkError is a request that got no answer, or not the whole of it.
type networkError struct{ err error }

func (e *networkError) Error() string { return e.err.Error() }
func (e *networkError) Unwrap() error { return e.err }

// networkProblem is err as a networkError, with the host in place of the whole
// address, which may be a signed one. A bad certificate, or a refused redirect, is
// none: asking again does not mend it, nor is it to be taken for a missing network.
func networkProblem(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
		if u, parseErr := url.Parse(request.URL); parseErr == nil && u.Host != "" {
			err = fmt.Errorf("%s: %w", u.Host, err)
		}
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) || errors.Is(err, errPlainHTTP) {
		return err
	}
	return &networkError{err}
}

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.status >= 500 || status.status == http.StatusTooManyRequests || status.status == http.StatusRequestTimeout
	}
	var network *networkError
	return errors.As(err, &network)
}

// refused reports whether no connection came about at all.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

// retry calls f until it succeeds, fails for good, or has failed maxAttempts
// times since it last reported progress.
func (c *Client) retry(ctx context.Context, what string, f func() (progress bool, err error)) error {
	for attempt := 1; ; attempt++ {
		progress, err := f()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || !transient(err) {
			return err
		}
		if progress {
			attempt = 1
		}
		if attempt == maxAttempts {
			return fmt.Errorf("%w (%d attempts)", err, attempt)
		}
		wait := c.pause(attempt)
		var status *statusError
		if errors.As(err, &status) && status.retryAfter > wait {
			if status.retryAfter > maxRetryAfter {
				return fmt.Errorf("%w: the server asks to wait %s", err, status.retryAfter)
			}
			wait = status.retryAfter
		}
		c.notice("%s: %v; again in %s", what, err, wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// ask repeats a request about a repository as retry does, but where no
// connection comes about: then the cache is the better answer.
func (c *Client) ask(ctx context.Context, r Repo, path string, f func() error) error {
	var noConnection error
	err := c.retry(ctx, fmt.Sprintf("hub %s %s", r.Kind, r), func() (bool, error) {
		err := f()
		if err != nil && refused(err) {
			noConnection = err
			return false, nil
		}
		return false, err
	})
	if noConnection != nil {
		return noConnection
	}
	return c.explain(r, path, err)
}

// explain says what a refusal means for the user.
func (c *Client) explain(r Repo, path string, err error) error {
	var status *statusError
	if err == nil || !errors.As(err, &status) || transient(err) {
		return err
	}
	switch {
	case status.status == http.StatusUnauthorized && c.Token == "" && status.code != "GatedRepo":
		return fmt.Errorf("no such repository, or a private one: check the name, or set HF_TOKEN: %w", err)
	case status.status == http.StatusUnauthorized && c.Token == "":
		return fmt.Errorf("a gated repository: accept its licence on %s and set HF_TOKEN: %w", c.page(r), err)
	case status.status == http.StatusUnauthorized || status.status == http.StatusForbidden:
		return fmt.Errorf("no access with this token: accept the licence on %s, or set another HF_TOKEN: %w", c.page(r), err)
	case status.status != http.StatusNotFound:
		return err
	case status.code == "RevisionNotFound":
		return fmt.Errorf("no revision %s: %w", r.revision(), err)
	case path != "" && status.code != "RepoNotFound":
		return fmt.Errorf("no file %s: %w", path, err)
	}
	return fmt.Errorf("no such repository: %w", err)
}

// page is the repository's page for people.
func (c *Client) page(r Repo) string {
	if r.Kind == Dataset {
		return c.Endpoint + "/datasets/" + r.ID
	}
	return c.Endpoint + "/" + r.ID
}

func (c *Client) resolveURL(r Repo, revision, path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return c.page(r) + "/resolve/" + url.PathEscape(revision) + "/" + strings.Join(parts, "/")
}

// list returns the commit that r stands for and its files, with their sizes in
// bytes, −1 where the hub does not say.
func (c *Client) list(ctx context.Context, r Repo) (commit string, files map[string]int64, err error) {
	address := fmt.Sprintf("%s/api/%ss/%s/revision/%s?blobs=true", c.Endpoint, r.Kind, r.ID, url.PathEscape(r.revision()))
	err = c.ask(ctx, r, "", func() error {
		ctx, cancel := context.WithTimeout(ctx, stallTimeout)
		defer cancel()
		resp, err := c.do(ctx, http.MethodGet, address, 0)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxListing+1))
		if err != nil {
			return networkProblem(err)
		}
		if len(data) > maxListing {
			return fmt.Errorf("list of files longer than %d bytes", maxListing)
		}
		if commit, files, err = c.parseList(data); err != nil {
			err = fmt.Errorf("%s: %w", address, err)
		}
		return err
	})
	return commit, files, err
}

// maxSiblings bounds the files in a list: two characters of text can be one.
const maxSiblings = 1 << 20

// parseList reads a hub's answer to list.
func (c *Client) parseList(data []byte) (commit string, files map[string]int64, err error) {
	if n := bytes.Count(data, []byte("{")); n > maxSiblings {
		return "", nil, fmt.Errorf("list of %d objects, want at most %d", n, maxSiblings)
	}
	var answer struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Name string `json:"rfilename"`
			Size *int64 `json:"size"`
		} `json:"siblings"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", nil, fmt.Errorf("not the answer of a hub: %w", pyjson.Plain(err))
	}
	if !commitHash.MatchString(answer.SHA) {
		return "", nil, fmt.Errorf("not the answer of a hub: commit %s", c.quoted(answer.SHA, 50))
	}
	files = map[string]int64{}
	for _, s := range answer.Siblings {
		if !safePath(s.Name) || c.holdsSecret(s.Name) {
			return "", nil, fmt.Errorf("refused: file name %s leaves the folder, or holds what cannot be shown", c.quoted(s.Name, 200))
		}
		files[s.Name] = -1
		if s.Size != nil && *s.Size >= 0 {
			files[s.Name] = *s.Size
		}
	}
	return answer.SHA, files, nil
}

// meta is what the hub says of a file.
type meta struct {
	commit string
	etag   string // SHA-256 in hex of a large file, git's blob hash of another
	size   int64  // bytes; −1 if not said
}

// head asks for the meta data of a file.
func (c *Client) head(ctx context.Context, r Repo, revision, path string) (meta, error) {
	var m meta
	address := c.resolveURL(r, revision, path)
	err := c.ask(ctx, r, path, func() error {
		resp, err := c.do(ctx, http.MethodHead, address, 0)
		if err != nil {
			return err
		}
		resp.Body.Close()
		m = readMeta(resp)
		return nil
	})
	if err != nil {
		return meta{}, err
	}
	if !commitHash.MatchString(m.commit) || !blobName.MatchString(m.etag) {
		return meta{}, fmt.Errorf("%s: not the answer of a hub: X-Repo-Commit %s, ETag %s", address, c.quoted(m.commit, 50), c.quoted(m.etag, 80))
	}
	return m, nil
}

func readMeta(resp *http.Response) meta {
	m := meta{commit: resp.Header.Get("X-Repo-Commit"), size: -1}
	if m.etag = resp.Header.Get("X-Linked-Etag"); m.etag == "" {
		m.etag = resp.Header.Get("ETag")
	}
	m.etag = strings.Trim(strings.TrimPrefix(m.etag, "W/"), `"`)
	if n, err := strconv.ParseInt(resp.Header.Get("X-Linked-Size"), 10, 64); err == nil && n >= 0 {
		m.size = n
	} else if resp.StatusCode == http.StatusOK {
		m.size = resp.ContentLength
	}
	return m
}

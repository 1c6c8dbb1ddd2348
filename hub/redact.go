package hub

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// hidden stands for what nobody is shown.
const hidden = "[hidden]"

// secrets are what must not be seen: the token, and the user's name and password
// in Endpoint, in the forms in which a server may send them back.
func (c *Client) secrets() []string {
	all := []string{c.Token, url.QueryEscape(c.Token)}
	if u, err := url.Parse(c.Endpoint); err == nil && u.User != nil {
		password, _ := u.User.Password()
		login := u.User.Username() + ":" + password
		all = append(all, u.User.String(), login, base64.StdEncoding.EncodeToString([]byte(login)), password, url.QueryEscape(password))
	}
	return all
}

// redact returns s without secrets, in capitals or not: a host's name is in small letters.
func (c *Client) redact(s string) string {
	for _, secret := range c.secrets() {
		if len(strings.Trim(secret, ":")) > 0 {
			s = replaceFold(s, secret, hidden)
		}
	}
	return s
}

// replaceFold puts new in place of old, in capitals or not.
func replaceFold(s, old, new string) string {
	var b strings.Builder
	old = lower(old)
	for low := lower(s); ; {
		i := strings.Index(low, old)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		b.WriteString(new)
		s, low = s[i+len(old):], low[i+len(old):]
	}
}

// lower is s with the letters of ASCII in lower case, and of the same length.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// holdsSecret reports whether a name has a secret in it that cannot be there by chance.
func (c *Client) holdsSecret(name string) bool {
	const least = 8 // bytes
	return slices.ContainsFunc(c.secrets(), func(secret string) bool {
		return len(secret) >= least && strings.Contains(lower(name), lower(secret))
	})
}

// quoted is the beginning of what a server sent, for an error. Half a secret at its end
// would no longer be known for one, so it is cut after secrets are hidden.
func (c *Client) quoted(s string, most int) string {
	if s = c.redact(s); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return strconv.Quote(s)
}

// redacted returns err with a text without secrets: a server may put what it was
// sent into any of its answers.
func (c *Client) redacted(err error) error {
	if err == nil {
		return nil
	}
	if text := err.Error(); c.redact(text) != text {
		return &redactedError{err, c.redact(text)}
	}
	return err
}

type redactedError struct {
	err  error
	text string
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

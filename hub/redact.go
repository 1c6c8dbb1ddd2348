package hub

import (
	"encoding/base64"
	"net/url"
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

// redact returns s without secrets.
func (c *Client) redact(s string) string {
	for _, secret := range c.secrets() {
		if len(strings.Trim(secret, ":")) > 0 {
			s = strings.ReplaceAll(s, secret, hidden)
		}
	}
	return s
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

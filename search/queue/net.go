package queue

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// answering returns a dialer whose connections are closed when nothing is received
// within limit after something was sent. River waits for its queries without a limit
// of its own, and a network that drops packets silently keeps a connection open for
// as long as nobody sends on it.
func answering(dial pgconn.DialFunc, limit time.Duration) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &impatient{Conn: c, limit: limit}, nil
	}
}

// impatient is a connection with a limit on silence after a question.
type impatient struct {
	net.Conn
	limit time.Duration

	mu    sync.Mutex
	asked *time.Timer // closes the connection; nil: nothing was sent since the last answer
}

func (c *impatient) Write(b []byte) (int, error) {
	c.mu.Lock()
	if c.asked == nil {
		c.asked = time.AfterFunc(c.limit, func() { c.Conn.Close() })
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *impatient) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.heard()
	return n, err
}

func (c *impatient) Close() error {
	c.heard()
	return c.Conn.Close()
}

func (c *impatient) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked != nil {
		c.asked.Stop()
		c.asked = nil
	}
}

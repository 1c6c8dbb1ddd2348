package pgtest

import (
	"net"
	"sync"
	"testing"
)

// Proxy forwards connections to a server, and can hang: it then accepts and reads
// what it is sent, and forwards nothing.
type Proxy struct {
	Host string

	to   string
	mu   sync.Mutex
	cond *sync.Cond
	hung bool
}

// NewProxy starts a proxy to a host, which ends with the test.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Host: l.Addr().String(), to: to}
	p.cond = sync.NewCond(&p.mu)
	t.Cleanup(func() { l.Close(); p.Hang(false) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

// Hang makes the proxy hang, or forward again what it has kept.
func (p *Proxy) Hang(hung bool) {
	p.mu.Lock()
	p.hung = hung
	p.mu.Unlock()
	p.cond.Broadcast()
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	p.wait()
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	var both sync.WaitGroup
	for _, d := range [][2]net.Conn{{c, s}, {s, c}} {
		both.Go(func() {
			defer d[1].Close()
			buffer := make([]byte, 64<<10)
			for {
				n, err := d[0].Read(buffer)
				p.wait()
				if _, werr := d[1].Write(buffer[:n]); err != nil || werr != nil {
					return
				}
			}
		})
	}
	both.Wait()
}

func (p *Proxy) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.hung {
		p.cond.Wait()
	}
}

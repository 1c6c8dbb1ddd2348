//go:build !(linux && amd64)

package driver

import "errors"

// host runs where the host program does.
type host struct{}

type function uint64

func startHost() (*host, error) {
	return nil, errors.New("CUDA is supported on Linux on x86-64 only")
}

func (*host) open(string) (uint64, error)             { panic("driver: no host") }
func (*host) symbol(uint64, string) (function, error) { panic("driver: no host") }
func (*host) call(function, ...uint64) uint64         { panic("driver: no host") }
func (*host) post(function, ...uint64)                { panic("driver: no host") }
func (*host) launch(function, ...uint64)              { panic("driver: no host") }
func (*host) share(int) (Shared, error)               { panic("driver: no host") }
func (*host) failure() (int, bool)                    { panic("driver: no host") }
func (*host) word() (uint64, *uint64)                 { panic("driver: no host") }
func (*host) reserve(int) uint64                      { panic("driver: no host") }
func (*host) text(string) uint64                      { panic("driver: no host") }
func (*host) at(uint64) []byte                        { panic("driver: no host") }
func (*host) peek(uint64) string                      { panic("driver: no host") }
func (*host) close()                                  {}

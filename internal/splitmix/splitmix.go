// Package splitmix is SplitMix64 (Steele, Lea and Flood 2014): random numbers
// whose stream is fixed by definition, whatever the Go version.
package splitmix

// Source is the state; its first value is the seed.
type Source uint64

// Next returns the next 64 bits.
func (s *Source) Next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

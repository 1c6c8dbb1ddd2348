package calibration

import (
	"fmt"
	"math/bits"
)

// pyRandom is the generator of Python's random module after random.seed(seed)
// with an integer: MT19937 (Matsumoto and Nishimura 1998), seeded by
// init_by_array with the seed's 32-bit digits, lowest first.
type pyRandom struct {
	state [mtN]uint32
	next  int // index of the next word in state; mtN: state is used up
}

const (
	mtN = 624
	mtM = 397
)

func newPyRandom(seed uint64) *pyRandom {
	key := []uint32{uint32(seed)}
	if seed>>32 != 0 {
		key = append(key, uint32(seed>>32))
	}
	r := &pyRandom{next: mtN}
	s := &r.state
	s[0] = 19650218
	for i := uint32(1); i < mtN; i++ {
		s[i] = 1812433253*(s[i-1]^s[i-1]>>30) + i
	}
	i := 1
	advance := func() {
		if i++; i == mtN {
			s[0] = s[mtN-1]
			i = 1
		}
	}
	for k := range mtN { // mtN ≥ len(key)
		j := k % len(key)
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1664525) + key[j] + uint32(j)
		advance()
	}
	for range mtN - 1 {
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1566083941) - uint32(i)
		advance()
	}
	s[0] = 1 << 31
	return r
}

// uint32 is the generator's next word, genrand_int32.
func (r *pyRandom) uint32() uint32 {
	if r.next == mtN {
		for i := range r.state {
			y := r.state[i]&(1<<31) | r.state[(i+1)%mtN]&(1<<31-1)
			r.state[i] = r.state[(i+mtM)%mtN] ^ y>>1 ^ -(y&1)&0x9908b0df
		}
		r.next = 0
	}
	y := r.state[r.next]
	r.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// getrandbits is random.getrandbits(k), 1 ≤ k ≤ 32.
func (r *pyRandom) getrandbits(k int) uint32 { return r.uint32() >> (32 - k) }

// randint is random.randint(a, b), a ≤ b < a+2³²−1: both ends are included. Python
// draws as many bits as the count of values has and again until they are a
// value.
func (r *pyRandom) randint(a, b int) int {
	n := uint64(b - a + 1)
	if b < a || n >= 1<<32 {
		panic(fmt.Sprintf("calibration: randint(%d, %d): want 1 to 2³²−1 values", a, b))
	}
	k := bits.Len64(n)
	for {
		if v := r.getrandbits(k); uint64(v) < n {
			return a + int(v)
		}
	}
}

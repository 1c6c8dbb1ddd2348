package gguf

// The K types: blocks of 256 elements with a scale for each 16 or 32, itself
// quantised.

// decodeQ2K: 16 pairs of nibbles (scale, minimum), 256 pairs of bits, d, dmin;
// (d·scale)·q − dmin·minimum.
func decodeQ2K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[84:] {
		scales, qs := src[:16], src[16:80]
		d, dmin := half(src[80:]), half(src[82:])
		for i, s := range scales {
			scale, least := d*float32(s&15), dmin*float32(s>>4)
			group := quarter(qs, i)
			for j := range 16 {
				dst[16*i+j] = float32(scale*float32(group.bits(j))) - least
			}
		}
	}
}

// bitPairs are 16 elements of 2 bits each: those at shift in 16 bytes.
type bitPairs struct {
	bytes []byte
	shift int
}

// quarter returns group i of 16 elements. 32 bytes hold 128 elements: the
// lowest bits the first 32 of them, and so on.
func quarter(qs []byte, i int) bitPairs {
	from := i/8*32 + i%2*16
	return bitPairs{qs[from : from+16], i % 8 / 2 * 2}
}

func (p bitPairs) bits(j int) byte { return p.bytes[j] >> p.shift & 3 }

// decodeQ3K: 256 high bits, 256 pairs of low bits, 16 scales of 6 bits, d;
// (d·(scale−32))·(low − 4·(1 − high)).
func decodeQ3K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[110:] {
		high, qs, scales, d := src[:32], src[32:96], src[96:108], half(src[108:])
		for i := range 16 {
			low := scales[i%8] >> (i / 8 * 4) & 15
			scale := d * float32(int(low|scales[8+i%4]>>(i/4*2)&3<<4)-32)
			group := quarter(qs, i)
			mask := high[i%2*16:]
			for j := range 16 {
				q := int(group.bits(j)) - 4*int(1^mask[j]>>(i/2)&1)
				dst[16*i+j] = scale * float32(q)
			}
		}
	}
}

// scaleMin returns scale and minimum i of the 8 pairs of 6-bit numbers in 12 bytes.
func scaleMin(s []byte, i int) (scale, least float32) {
	if i < 4 {
		return float32(s[i] & 63), float32(s[i+4] & 63)
	}
	return float32(s[i+4]&15 | s[i-4]>>6<<4), float32(s[i+4]>>4 | s[i]>>6<<4)
}

// decodeQ4K: d, dmin, 8 pairs of scale and minimum, 256 nibbles;
// (d·scale)·q − dmin·minimum.
func decodeQ4K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[144:] {
		d, dmin, scales, qs := half(src), half(src[2:]), src[4:16], src[16:144]
		for i := range 8 {
			s, m := scaleMin(scales, i)
			scale, least := d*s, dmin*m
			part := qs[i/2*32:][:32]
			for j, b := range part {
				dst[32*i+j] = float32(scale*float32(b>>(i%2*4)&15)) - least
			}
		}
	}
}

// decodeQ5K: d, dmin, 8 pairs of scale and minimum, 256 fifth bits, 256 nibbles;
// (d·scale)·q − dmin·minimum.
func decodeQ5K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[176:] {
		d, dmin, scales, high, qs := half(src), half(src[2:]), src[4:16], src[16:48], src[48:176]
		for i := range 8 {
			s, m := scaleMin(scales, i)
			scale, least := d*s, dmin*m
			part := qs[i/2*32:][:32]
			for j, b := range part {
				q := b>>(i%2*4)&15 | high[j]>>i&1<<4
				dst[32*i+j] = float32(scale*float32(q)) - least
			}
		}
	}
}

// decodeQ6K: 256 nibbles, 256 pairs of high bits, 16 signed scales, d;
// (d·scale)·(q−32).
func decodeQ6K(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[210:] {
		low, high, scales, d := src[:128], src[128:192], src[192:208], half(src[208:])
		for i := range 8 { // groups of 32
			l := low[i/4*64+i%2*32:][:32]
			h := high[i/4*32:][:32]
			for j := range 32 {
				scale := d * float32(int8(scales[2*i+j/16]))
				q := int(l[j]>>(i%4/2*4)&15|h[j]>>(i%4*2)&3<<4) - 32
				dst[32*i+j] = scale * float32(q)
			}
		}
	}
}

// decodeIQ4XS: d, high bits of 8 scales, low nibbles of them, 256 nibbles;
// (d·(scale−32))·values4[q].
func decodeIQ4XS(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[136:] {
		d, high, low, qs := half(src), le.Uint16(src[2:]), src[4:8], src[8:136]
		for i := range 8 {
			scale := int(low[i/2]>>(i%2*4)&15) | int(high>>(2*i)&3)<<4
			decode16(dst[32*i:], qs[16*i:][:16], d*float32(scale-32))
		}
	}
}

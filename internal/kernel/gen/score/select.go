package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Predicates of VCMPPS that are false for NaN and raise nothing.
const (
	lessThan       = 0x11
	greaterOrEqual = 0x1d
)

// storeBits stores a bit a lane at m, and returns them.
func (v isa) storeBits(mask reg.Register, m operand.Mem) reg.GPVirtual {
	bits := GP32()
	if v.wide() {
		KMOVW(mask, bits)
		MOVW(bits.As16(), m)
	} else {
		VMOVMSKPS(mask, bits)
		MOVB(bits.As8(), m)
	}
	return bits
}

// mask returns a register for the result of a comparison.
func (v isa) mask() reg.Register {
	if v.wide() {
		return K()
	}
	return YMM()
}

// bitsAt is where the bits of element i + offset are; byteIndex is i/8.
func bitsAt(dst, byteIndex reg.Register, offset int) operand.Mem {
	return operand.Mem{Base: dst, Index: byteIndex, Scale: 1, Disp: offset / 8}
}

func byteIndex(i reg.Register) reg.GPVirtual {
	b := GP64()
	MOVQ(i, b)
	SHRQ(operand.U8(3), b)
	return b
}

func atLeast(v isa) {
	v.function("atLeast", "dst *uint64, x *float32, t float32", " int")
	dst, x, t := pointer("dst"), pointer("x"), v.parameter("t")
	count := GP64()
	XORQ(count, count)
	loop(64, func(i reg.Register) {
		b := byteIndex(i)
		for offset := 0; offset < 64; offset += v.lanes {
			mask := v.mask()
			VCMPPS(operand.U8(greaterOrEqual), t, v.load(at(x, i, 4, offset)), mask)
			v.storeBits(mask, bitsAt(dst, b, offset))
		}
		ones := GP64()
		POPCNTQ(bitsAt(dst, b, 0), ones)
		ADDQ(ones, count)
	})
	Store(count, ReturnIndex(0))
	ret()
}

// countBelow counts in four vectors: a lane counts at most n/64.
func countBelow(v isa) {
	v.function("countBelow", "x *float32, t float32", " int")
	x, t := pointer("x"), v.parameter("t")
	counts := [4]reg.VecVirtual{v.zero(), v.zero(), v.zero(), v.zero()}
	one := v.spread(1)
	loop(4*v.lanes, func(i reg.Register) {
		for h, c := range counts {
			mask := v.mask()
			VCMPPS(operand.U8(lessThan), t, v.load(at(x, i, 4, h*v.lanes)), mask)
			v.addOnes(mask, one, c)
		}
	})
	VPADDD(counts[0], counts[1], counts[1])
	VPADDD(counts[2], counts[3], counts[3])
	VPADDD(counts[1], counts[3], counts[3])
	sum := counts[3]
	if v.wide() {
		hi := YMM()
		VEXTRACTI64X4(operand.U8(1), sum, hi)
		VPADDD(sum.AsY(), hi, hi)
		sum = hi
	}
	hi, s := XMM(), XMM()
	VEXTRACTI128(operand.U8(1), sum.AsY(), hi)
	VPADDD(sum.AsX(), hi, s)
	VPSHUFD(operand.U8(0b11_10), s, hi)
	VPADDD(hi, s, s)
	VPSHUFD(operand.U8(0b01), s, hi)
	VPADDD(hi, s, s)
	count := GP64()
	XORQ(count, count)
	VMOVD(s, count.As32())
	Store(count, ReturnIndex(0))
	ret()
}

// addOnes adds 1 to the lanes of sum that mask has set.
func (v isa) addOnes(mask reg.Register, one, sum reg.VecVirtual) {
	if v.wide() {
		VPADDD(one, sum, mask, sum)
	} else {
		VPSUBD(mask, sum, sum) // set is −1
	}
}

func maxBits(v isa) {
	v.function("maxBits", "x *float32", " uint32")
	x := pointer("x")
	top := [2]reg.VecVirtual{v.zero(), v.zero()}
	loop(2*v.lanes, func(i reg.Register) {
		for h, t := range top {
			VPMAXUD(at(x, i, 4, h*v.lanes), t, t)
		}
	})
	VPMAXUD(top[0], top[1], top[0])
	v.returnTop(top[0])
}

// keepBest counts for each element those of its group that go before it, one
// rotation of the groups at a time: lane l meets lane turn[l], and minus[l] is
// 1 where that one has the lower index and goes first if equal. Compared as
// integers, which order floats that are not negative.
func keepBest(v isa) {
	v.function("keepBest", "dst *uint64, x *float32, turn, minus *int32, rotations, dropped int", "")
	dst, x, turn, minus := pointer("dst"), pointer("x"), pointer("turn"), pointer("minus")
	rotations := pointer("rotations")
	SHLQ(operand.U8(4), rotations) // elements of turn and minus
	last, sign, one := v.reg(), v.spread(signOff), v.spread(1)
	dropped, err := Param("dropped").Resolve()
	if err != nil {
		panic(err)
	}
	VPBROADCASTD(dropped.Addr, last)
	VPSUBD(one, last, last)
	loop(4*v.lanes, func(i reg.Register) {
		var own, rank [4]reg.VecVirtual
		for h := range own {
			own[h], rank[h] = v.reg(), v.zero()
			v.and(at(x, i, 4, h*v.lanes), sign, own[h])
		}
		q := GP64()
		XORQ(q, q)
		Label("rotate")
		order := v.load(at(turn, q, 4, 0))
		for h := range own {
			other, mask := v.reg(), v.mask()
			VPERMPS(own[h], order, other)
			VPSUBD(at(minus, q, 4, 0), other, other)
			VPCMPGTD(other, own[h], mask)
			v.addOnes(mask, one, rank[h])
		}
		ADDQ(operand.U8(16), q)
		CMPQ(q, rotations)
		JLT(operand.LabelRef("rotate"))
		b := byteIndex(i)
		for h := range rank {
			mask := v.mask()
			VPCMPGTD(last, rank[h], mask)
			v.storeBits(mask, bitsAt(dst, b, h*v.lanes))
		}
	})
	ret()
}

func zeroUnset32(v isa) {
	v.function("zeroUnset32", "x *float32, bits *uint64", "")
	x, bits := pointer("x"), pointer("bits")
	var each reg.VecVirtual
	if !v.wide() {
		each = v.load(table(1, 2, 4, 8, 16, 32, 64, 128))
	}
	loop(64, func(i reg.Register) {
		b := byteIndex(i)
		for offset := 0; offset < 64; offset += v.lanes {
			m, kept := at(x, i, 4, offset), v.reg()
			if v.wide() {
				mask := K()
				KMOVW(bitsAt(bits, b, offset), mask)
				VMOVUPS_Z(m, mask, kept)
			} else {
				VPBROADCASTB(bitsAt(bits, b, offset), kept)
				VPAND(each, kept, kept)
				VPCMPEQD(each, kept, kept)
				VPAND(m, kept, kept)
			}
			VMOVUPS(kept, m)
		}
	})
	ret()
}

func zeroUnset16(v isa) {
	v.function("zeroUnset16", "x *uint16, bits *uint64", "")
	x, bits := pointer("x"), pointer("bits")
	var each reg.VecVirtual
	if !v.wide() {
		each = v.load(table(0x2_0001, 0x8_0004, 0x20_0010, 0x80_0040,
			0x200_0100, 0x800_0400, 0x2000_1000, 0x8000_4000))
	}
	loop(64, func(i reg.Register) {
		b := byteIndex(i)
		for offset := 0; offset < 64; offset += 2 * v.lanes {
			m, kept := at(x, i, 2, offset), v.reg()
			if v.wide() {
				mask := K()
				KMOVD(bitsAt(bits, b, offset), mask)
				VMOVDQU16_Z(m, mask, kept)
			} else {
				VPBROADCASTW(bitsAt(bits, b, offset), kept)
				VPAND(each, kept, kept)
				VPCMPEQW(each, kept, kept)
				VPAND(m, kept, kept)
			}
			VMOVUPS(kept, m)
		}
	})
	ret()
}

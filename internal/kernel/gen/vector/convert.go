package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func widenBF16(v isa) {
	v.function("widenBF16", "dst *float32, src *uint16", "")
	dst, src := pointer("dst"), pointer("src")
	loop(v.lanes, func(i reg.Register) {
		x := v.reg()
		VPMOVZXWD(at(src, i, 2, 0), x)
		VPSLLD(operand.U8(16), x, x)
		VMOVUPS(x, at(dst, i, 4, 0))
	})
	ret()
}

func widenF16(v isa) {
	v.function("widenF16", "dst *float32, src *uint16", "")
	dst, src := pointer("dst"), pointer("src")
	loop(v.lanes, func(i reg.Register) {
		x := v.reg()
		VCVTPH2PS(at(src, i, 2, 0), x)
		VMOVUPS(x, at(dst, i, 4, 0))
	})
	ret()
}

// narrowBF16 rounds in integers: VCVTNEPS2BF16 takes subnormals for zero.
func narrowBF16(v isa) {
	v.function("narrowBF16", "dst *uint16, src *float32", "")
	dst, src := pointer("dst"), pointer("src")
	one, half, quiet := v.spread(operand.U32(1)), v.spread(operand.U32(0x7fff)), v.spread(operand.U32(0x40))
	if v.lanes == 16 {
		loop(16, func(i reg.Register) {
			r := v.roundBF16(v.load(at(src, i, 4, 0)), one, half, quiet)
			VPMOVDW(r, at(dst, i, 2, 0))
		})
		ret()
		return
	}
	loop(16, func(i reg.Register) {
		lo := v.roundBF16(v.load(at(src, i, 4, 0)), one, half, quiet)
		hi := v.roundBF16(v.load(at(src, i, 4, 8)), one, half, quiet)
		VPACKUSDW(hi, lo, lo) // quarters lo0 hi0 lo1 hi1
		VPERMQ(operand.U8(0b11_01_10_00), lo, lo)
		VMOVDQU(lo, at(dst, i, 2, 0))
	})
	ret()
}

// roundBF16 returns x as bfloat16, each in the lower half of its lane.
func (v isa) roundBF16(x, one, half, quiet reg.VecVirtual) reg.VecVirtual {
	r, nan := v.reg(), v.reg()
	VPSRLD(operand.U8(16), x, nan)
	if v.lanes == 16 {
		isNaN := K()
		VCMPPS(operand.U8(3), x, x, isNaN) // unordered
		VPANDD(one, nan, r)
		VPADDD(half, r, r)
		VPADDD(x, r, r)
		VPSRLD(operand.U8(16), r, r)
		VPORD(quiet, nan, isNaN, r)
		return r
	}
	isNaN := v.reg()
	VCMPPS(operand.U8(3), x, x, isNaN)
	VPAND(one, nan, r)
	VPADDD(half, r, r)
	VPADDD(x, r, r)
	VPSRLD(operand.U8(16), r, r)
	VPOR(quiet, nan, nan)
	VBLENDVPS(isNaN, nan, r, r)
	return r
}

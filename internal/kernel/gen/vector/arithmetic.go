package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// loadWide returns a register holding v.lanes/2 float32 from m as float64.
func (v isa) loadWide(m operand.Mem) reg.VecVirtual {
	x := v.reg()
	VCVTPS2PD(m, x)
	return x
}

func addSquares(v isa) {
	v.function("addSquares", "acc *float64, x *float32", "")
	acc, x := pointer("acc"), pointer("x")
	loop(v.lanes, func(i reg.Register) {
		for _, offset := range []int{0, v.lanes / 2} {
			a, u := v.reg(), v.loadWide(at(x, i, 4, offset))
			VMOVUPD(at(acc, i, 8, offset), a)
			VFMADD231PD(u, u, a)
			VMOVUPD(a, at(acc, i, 8, offset))
		}
	})
	ret()
}

func add(v isa) {
	v.function("add", "dst, x *float32", "")
	dst, x := pointer("dst"), pointer("x")
	loop(v.lanes, func(i reg.Register) {
		d := v.load(at(dst, i, 4, 0))
		VADDPS(at(x, i, 4, 0), d, d)
		VMOVUPS(d, at(dst, i, 4, 0))
	})
	ret()
}

func sumSquares(v isa) {
	v.function("sumSquares", "x *float32", " float64")
	x := pointer("x")
	sums := [2]reg.VecVirtual{v.zero(), v.zero()}
	loop(v.lanes, func(i reg.Register) {
		for h, sum := range sums {
			u := v.loadWide(at(x, i, 4, h*v.lanes/2))
			VFMADD231PD(u, u, sum)
		}
	})
	VADDPD(sums[0], sums[1], sums[0])
	v.returnSum(sums[0])
}

func (v isa) zero() reg.VecVirtual {
	x := v.reg()
	VXORPS(x, x, x)
	return x
}

// returnSum returns the sum of the float64 in x.
func (v isa) returnSum(x reg.VecVirtual) {
	if v.lanes == 16 {
		hi := YMM()
		VEXTRACTF64X4(operand.U8(1), x, hi)
		VADDPD(x.AsY(), hi, hi)
		x = hi
	}
	hi, sum := XMM(), XMM()
	VEXTRACTF128(operand.U8(1), x.AsY(), hi)
	VADDPD(x.AsX(), hi, sum)
	VPERMILPD(operand.U8(1), sum, hi)
	VADDSD(hi, sum, sum)
	Store(sum, ReturnIndex(0))
	ret()
}

func scaleMul(v isa) {
	v.function("scaleMul", "dst, x, w *float32, r float32", "")
	dst, x, w := pointer("dst"), pointer("x"), pointer("w")
	s, r := Load(Param("r"), XMM()), v.reg()
	VBROADCASTSS(s, r)
	loop(v.lanes, func(i reg.Register) {
		u := v.reg()
		VMULPS(at(x, i, 4, 0), r, u)
		VMULPS(at(w, i, 4, 0), u, u)
		VMOVUPS(u, at(dst, i, 4, 0))
	})
	ret()
}

func rope(v isa) {
	v.function("rope", "a, b, cos, sin *float32", "")
	pa, pb, pcos, psin := pointer("a"), pointer("b"), pointer("cos"), pointer("sin")
	loop(v.lanes, func(i reg.Register) {
		a, b := v.load(at(pa, i, 4, 0)), v.load(at(pb, i, 4, 0))
		cos, sin := v.load(at(pcos, i, 4, 0)), v.load(at(psin, i, 4, 0))
		ac, as, bc, bs := v.reg(), v.reg(), v.reg(), v.reg()
		VMULPS(cos, a, ac)
		VMULPS(sin, a, as)
		VMULPS(cos, b, bc)
		VMULPS(sin, b, bs)
		VSUBPS(bs, ac, ac)
		VADDPS(as, bc, bc)
		VMOVUPS(ac, at(pa, i, 4, 0))
		VMOVUPS(bc, at(pb, i, 4, 0))
	})
	ret()
}

func maximum(v isa) {
	v.function("max", "x *float32", " float32")
	x := pointer("x")
	top := [2]reg.VecVirtual{v.load(operand.Mem{Base: x}), v.load(operand.Mem{Base: x})}
	loop(2*v.lanes, func(i reg.Register) {
		for h, t := range top {
			VMAXPS(at(x, i, 4, h*v.lanes), t, t)
		}
	})
	VMAXPS(top[0], top[1], top[0])
	wide := top[0]
	if v.lanes == 16 {
		hi := YMM()
		VEXTRACTF32X8(operand.U8(1), wide, hi)
		VMAXPS(wide.AsY(), hi, hi)
		wide = hi
	}
	t, hi := XMM(), XMM()
	VEXTRACTF128(operand.U8(1), wide.AsY(), hi)
	VMAXPS(wide.AsX(), hi, t)
	VPERMILPS(operand.U8(0b11_10), t, hi)
	VMAXPS(hi, t, t)
	VPERMILPS(operand.U8(0b01), t, hi)
	VMAXSS(hi, t, t)
	Store(t, ReturnIndex(0))
	ret()
}

package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// reduce folds the lanes of r into its lowest.
func (v vector) reduce(r, tmp reg.VecPhysical, op func(b, a, dst operand.Op)) {
	if v.wide() {
		VEXTRACTF32X8(operand.Imm(1), r, tmp.AsY())
		op(tmp.AsY(), r.AsY(), r.AsY())
		VEXTRACTF32X4(operand.Imm(1), r.AsY(), tmp.AsX())
	} else {
		VEXTRACTF128(operand.Imm(1), r.AsY(), tmp.AsX())
	}
	op(tmp.AsX(), r.AsX(), r.AsX())
	VPSHUFD(operand.Imm(0x4e), r.AsX(), tmp.AsX())
	op(tmp.AsX(), r.AsX(), r.AsX())
	VPSHUFD(operand.Imm(0xb1), r.AsX(), tmp.AsX())
	op(tmp.AsX(), r.AsX(), r.AsX())
}

// maxRow generates maxRow for whole vectors.
func maxRow(v vector) {
	name := "maxRow" + v.name
	function(name, "func(s *float32, vectors int) float32",
		name+" is maxRow for whole vectors, at least one.")
	s := Load(Param("s"), reg.RSI).(reg.GPPhysical)
	n := Load(Param("vectors"), reg.RCX).(reg.GPPhysical)
	top, tmp := v.all[0], v.all[1]
	VMOVUPS(mem(s, 0), top)
	Label("loop")
	VMAXPS(mem(s, 0), top, top)
	ADDQ(operand.I32(v.bytes()), s)
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	v.reduce(top, tmp, func(b, a, dst operand.Op) { VMAXPS(b, a, dst) })
	Store(top.AsX(), ReturnIndex(0))
	ret()
}

// exp(r) ≈ 1 + r + r²·q(r) on |r| ≤ ln 2 / 2, q fitted in the Chebyshev nodes
// of degree 4: off by 0.18 · 2⁻²⁴, relatively, in exact arithmetic.
var expPoly = [...]float32{0.5, 0.16666576, 0.041666463, 0.008363205, 0.0013933688}

// ln 2 = expLn2High + expLn2Low to 48 bits.
const (
	expLn2High = 0.6931472
	expLn2Low  = -1.9046542e-09
	log2e      = 1.442695
	expLow     = -87.33654 // exp gives 2⁻¹²⁶; what is below counts as 0
)

// expRow generates expRow for whole vectors: exp(x) = 2ⁿ·exp(r) with n the
// integer nearest to x/ln 2.
func expRow(v vector) {
	name := "expRow" + v.name
	constants := []float32{expLow, log2e, expLn2High, expLn2Low, 1}
	constants = append(constants, expPoly[:]...)
	table := GLOBL(name+"Constants", RODATA|NOPTR)
	for i, c := range constants {
		DATA(4*i, operand.F32(c))
	}

	function(name, "func(s *float32, vectors int, scale float32, top float32) float32",
		name+" is expRow for whole vectors, at least one.")
	s := Load(Param("s"), reg.RSI).(reg.GPPhysical)
	n := Load(Param("vectors"), reg.RCX).(reg.GPPhysical)
	x, k, p, sum, scale, top := v.all[0], v.all[1], v.all[2], v.all[3], v.all[4], v.all[5]
	low, toN, high, small, one, q := v.all[6], v.all[7], v.all[8], v.all[9], v.all[10], v.all[11:16]
	for _, arg := range []struct {
		name string
		to   reg.VecPhysical
	}{{"scale", scale}, {"top", top}} {
		address, err := Param(arg.name).Resolve()
		if err != nil {
			panic(err)
		}
		VBROADCASTSS(address.Addr, arg.to)
	}
	for i, r := range append([]reg.VecPhysical{low, toN, high, small, one}, q...) {
		VBROADCASTSS(table.Offset(4*i), r)
	}
	v.zero(sum)

	Label("loop")
	VMOVUPS(mem(s, 0), x)
	VFMSUB213PS(top, scale, x)
	if v.wide() {
		VCMPPS(operand.Imm(notLess), low, x, reg.K1)
	}
	VMAXPS(x, low, x) // NaN stays
	VMULPS(toN, x, k)
	if v.wide() {
		VRNDSCALEPS(operand.Imm(toNearest), k, k)
	} else {
		VROUNDPS(operand.Imm(toNearest), k, k)
	}
	VFNMADD231PS(high, k, x)
	VFNMADD231PS(small, k, x)
	VMOVAPS(q[4], p)
	for _, c := range []reg.VecPhysical{q[3], q[2], q[1], q[0], one, one} {
		VFMADD213PS(c, x, p)
	}
	Comment("2ⁿ: n in the exponent's place, plus the bits of 1")
	VCVTPS2DQ(k, k)
	VPSLLD(operand.Imm(23), k, k)
	VPADDD(one, k, k)
	if v.wide() {
		VMULPS_Z(k, p, reg.K1, p)
	} else {
		VMULPS(k, p, p)
		Comment("No register is left to hold the argument: it is computed again")
		VMOVUPS(mem(s, 0), k)
		VFMSUB213PS(top, scale, k)
		VCMPPS(operand.Imm(notLess), low, k, k)
		VANDPS(k, p, p)
	}
	VADDPS(p, sum, sum)
	VMOVUPS(p, mem(s, 0))
	ADDQ(operand.I32(v.bytes()), s)
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	v.reduce(sum, x, func(b, a, dst operand.Op) { VADDPS(b, a, dst) })
	Store(sum.AsX(), ReturnIndex(0))
	ret()
}

// Immediate operands.
const (
	notLess   = 5 // of VCMPPS: true for NaN
	toNearest = 8 // of VROUNDPS: ties to even, no inexact exception
)

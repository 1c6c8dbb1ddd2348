package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// ln2 is split so that n·ln2Hi is exact: n has 8 bits, ln2Hi has 9.
const (
	ln2Hi = 0x1.63p-1
	ln2Lo = math.Ln2 - ln2Hi
)

// expTerms is the degree of the Taylor polynomial of exp on |r| ≤ ln2/2: the
// first term left out is r⁸/8! ≤ 5.2e-9 < 2⁻²⁷.
const expTerms = 7

// exp emits float32 exponentials; new loads its constants.
type exp struct {
	isa
	least, log2e, hi, lo reg.VecVirtual
	inverse              [expTerms + 1]operand.Op // 1/k!
	bias                 operand.Op               // avx2: of the exponent
}

func newExp(v isa) *exp {
	e := &exp{isa: v}
	e.least = v.spread(operand.F32(-104))
	e.log2e = v.spread(operand.F32(math.Log2E))
	e.hi, e.lo = v.spread(operand.F32(ln2Hi)), v.spread(operand.F32(ln2Lo))
	factorial := 1.0
	for k := range e.inverse {
		factorial *= float64(max(k, 1))
		e.inverse[k] = e.factor(operand.F32(1 / factorial))
	}
	if v.lanes == 8 {
		e.bias = e.factor(operand.U32(127))
	}
	return e
}

// factor returns value in every lane of an operand: a register, but of memory
// for avx2, which has too few.
func (e *exp) factor(value operand.Constant) operand.Op {
	if e.lanes == 16 {
		return e.spread(value)
	}
	return constant8(value)
}

// of replaces x ≤ 0 by exp(x), NaN by NaN:
//
//	x = n·ln2 + r,  exp(x) = 2ⁿ·(1 + r + r²/2 + … + r⁷/7!)
//
// Below −104 the result is 0, as it is by rounding. TestExpError measures
// the error: at most 0.87 ulp.
func (e *exp) of(x reg.VecVirtual) {
	n, p := e.reg(), e.reg()
	VMAXPS(x, e.least, x) // a NaN in the first operand stays
	VMULPS(e.log2e, x, n)
	if e.lanes == 16 {
		VRNDSCALEPS(operand.U8(8), n, n) // nearest
	} else {
		VROUNDPS(operand.U8(8), n, n)
	}
	VFNMADD231PS(e.hi, n, x)
	VFNMADD231PS(e.lo, n, x)
	VMOVUPS(e.inverse[expTerms], p)
	for k := expTerms - 1; k >= 0; k-- {
		VFMADD213PS(e.inverse[k], x, p)
	}
	if e.lanes == 16 {
		VSCALEFPS(n, p, x)
		return
	}
	// 2ⁿ in two factors, as n goes down to −150: the first product is exact,
	// the second rounds a subnormal result once.
	VCVTPS2DQ(n, n)
	VPSRAD(operand.U8(1), n, x)
	VPSUBD(x, n, n)
	for _, s := range []reg.VecVirtual{x, n} {
		VPADDD(e.bias, s, s)
		VPSLLD(operand.U8(23), s, s)
		VMULPS(s, p, p)
	}
	VMOVAPS(p, x)
}

// siluMul takes t = exp(−|g|), which cannot overflow:
//
//	silu(g) = g/(1+t) for g ≥ 0, g·t/(1+t) below
func siluMul(v isa) {
	v.function("siluMul", "dst, gate, up *float32", "")
	dst, gate, up := pointer("dst"), pointer("gate"), pointer("up")
	e := newExp(v)
	sign := v.spread(operand.U32(1 << 31))
	one := e.inverse[0]
	loop(v.lanes, func(i reg.Register) {
		g, t, low := v.load(at(gate, i, 4, 0)), v.reg(), v.reg()
		VORPS(sign, g, t)
		e.of(t)
		if v.lanes == 16 {
			negative := K()
			VPMOVD2M(g, negative)
			VMOVAPS(g, low)
			VMULPS(t, g, negative, low)
		} else {
			VMULPS(t, g, low)
			VBLENDVPS(g, low, g, low)
		}
		VADDPS(one, t, t)
		VDIVPS(t, low, low)
		VMULPS(at(up, i, 4, 0), low, low)
		VMOVUPS(low, at(dst, i, 4, 0))
	})
	ret()
}

func sumExp(v isa) {
	v.function("sumExp", "x *float32, top float32", " float64")
	x := pointer("x")
	s, top := Load(Param("top"), XMM()), v.reg()
	VBROADCASTSS(s, top)
	e := newExp(v)
	sums := [2]reg.VecVirtual{v.zero(), v.zero()}
	loop(v.lanes, func(i reg.Register) {
		u, hi, wide := v.load(at(x, i, 4, 0)), v.half(), v.reg()
		VSUBPS(top, u, u)
		e.of(u)
		if v.lanes == 16 {
			VEXTRACTF32X8(operand.U8(1), u, hi)
			VCVTPS2PD(u.AsY(), wide)
		} else {
			VEXTRACTF128(operand.U8(1), u, hi)
			VCVTPS2PD(u.AsX(), wide)
		}
		VADDPD(wide, sums[0], sums[0])
		VCVTPS2PD(hi, u)
		VADDPD(u, sums[1], sums[1])
	})
	VADDPD(sums[0], sums[1], sums[0])
	v.returnSum(sums[0])
}

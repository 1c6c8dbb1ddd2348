package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// absSums keeps the 16 sums of a row in registers.
func absSums(v isa) {
	v.function("absSums", "col, lanes *float64, x *float32", "")
	col, lanes, x := pointer("col"), pointer("lanes"), pointer("x")
	half := v.lanes / 2 // float64 in a register
	sums := make([]reg.VecVirtual, 16/half)
	for h := range sums {
		sums[h] = v.load(operand.Mem{Base: lanes, Disp: 8 * half * h})
	}
	sign := v.reg()
	VPBROADCASTQ(table(0xffffffff, signOff), sign)
	loop(16, func(i reg.Register) {
		for h, sum := range sums {
			a := v.reg()
			VCVTPS2PD(at(x, i, 4, half*h), a)
			v.and(sign, a, a)
			VADDPD(a, sum, sum)
			VADDPD(at(col, i, 8, half*h), a, a)
			VMOVUPD(a, at(col, i, 8, half*h))
		}
	})
	for h, sum := range sums {
		VMOVUPD(sum, operand.Mem{Base: lanes, Disp: 8 * half * h})
	}
	ret()
}

func abs(v isa) {
	v.function("abs", "dst, x *float32", "")
	dst, x := pointer("dst"), pointer("x")
	sign := v.spread(signOff)
	loop(v.lanes, func(i reg.Register) {
		a := v.reg()
		v.and(at(x, i, 4, 0), sign, a)
		VMOVUPS(a, at(dst, i, 4, 0))
	})
	ret()
}

// absBF16 shifts the sign out on the way to the upper half.
func absBF16(v isa) {
	v.function("absBF16", "dst *float32, x *uint16", "")
	dst, x := pointer("dst"), pointer("x")
	loop(v.lanes, func(i reg.Register) {
		a := v.reg()
		VPMOVZXWD(at(x, i, 2, 0), a)
		VPSLLD(operand.U8(17), a, a)
		VPSRLD(operand.U8(1), a, a)
		VMOVUPS(a, at(dst, i, 4, 0))
	})
	ret()
}

func scaleAbs(v isa) {
	v.function("scaleAbs", "dst, x, s *float32", " uint32")
	dst, x, s := pointer("dst"), pointer("x"), pointer("s")
	sign, top := v.spread(signOff), v.zero()
	loop(v.lanes, func(i reg.Register) {
		a := v.reg()
		v.and(at(x, i, 4, 0), sign, a)
		VPMAXUD(a, top, top)
		VMULPS(at(s, i, 4, 0), a, a)
		VMOVUPS(a, at(dst, i, 4, 0))
	})
	v.returnTop(top)
}

func relativeImportance(v isa) {
	v.function("relativeImportance", "dst, x, b, s *float32, a float32", "")
	dst, x, b, s := pointer("dst"), pointer("x"), pointer("b"), pointer("s")
	a, sign := v.parameter("a"), v.spread(signOff)
	loop(v.lanes, func(i reg.Register) {
		w, c := v.reg(), v.reg()
		v.and(at(x, i, 4, 0), sign, w)
		VADDPS(at(b, i, 4, 0), a, c)
		VMULPS(c, w, w)
		VMULPS(at(s, i, 4, 0), w, w)
		VMOVUPS(w, at(dst, i, 4, 0))
	})
	ret()
}

// crossHalo is kernel.Halo.
const crossHalo = 16

// scoresAhead is how many scores ahead dst is fetched, which no cache holds: the
// stores of a row are too far apart, among so many loads, for the processor to
// do so in time.
const scoresAhead = 256

// crossKernel holds the registers of one cross function.
type crossKernel struct {
	isa
	r                                int
	dst, row, above, under, b, s     reg.Register
	below                            []reg.Register
	a, gamma, tiny                   reg.VecVirtual
	u                                reg.VecVirtual // column sums without the row, of the vector last read
	windowBefore, window, windowNext reg.VecVirtual // sums of r of them from each element on
}

// cross goes along the row with three vectors in hand. Reading vector v of
// the column sums U completes the windows of vector v−1, and these complete
// the neighbourhoods of vector v−2, which is scored.
func cross(v isa, r int) {
	params := "dst, row, above, under, b, s"
	names := []string{"below1", "below2", "below3", "below4", "below5"}[:r]
	for _, n := range names {
		params += ", " + n
	}
	v.function("cross"+string(rune('0'+r)), params+" *float32, a, gamma float32", "")
	k := crossKernel{
		isa: v, r: r,
		dst: pointer("dst"), row: pointer("row"), above: pointer("above"), under: pointer("under"),
		b: pointer("b"), s: pointer("s"),
		a: v.parameter("a"), gamma: v.parameter("gamma"), tiny: v.spread(smallest),
		u: v.reg(), windowBefore: v.reg(), window: v.reg(), windowNext: v.reg(),
	}
	for _, n := range names {
		k.below = append(k.below, pointer(n))
	}
	n, i := Load(Param("n"), GP64()), GP64()
	XORQ(i, i)
	k.read(i, 0)
	if !v.wide() { // the first of two vectors of halo is only summed
		ADDQ(operand.U8(uint8(v.lanes)), i)
		k.read(i, 0)
	}
	k.windows(k.read(i, v.lanes))
	VMOVAPS(k.windowNext, k.window)
	k.windows(k.read(i, 2*v.lanes))
	k.advance()
	XORQ(i, i) // of the output; vectors of the others lie crossHalo further
	ahead := crossHalo + 2*v.lanes
	if v.wide() {
		// The halo after the last vector is the last read; one output is
		// left then, of which nothing further on is part.
		SUBQ(operand.U8(16), n)
		JZ(operand.LabelRef("last"))
	}
	Label("loop")
	k.windows(k.read(i, ahead))
	k.score(i)
	k.advance()
	ADDQ(operand.U8(uint8(v.lanes)), i)
	CMPQ(i, n)
	JLT(operand.LabelRef("loop"))
	if v.wide() {
		Label("last")
		k.windows(k.u)
		k.score(i)
	}
	ret()
}

// read returns the column sums at i + offset and stores their lower part.
// Those of offset 0 are left in k.u.
func (k *crossKernel) read(i reg.Register, offset int) reg.VecVirtual {
	u := k.u
	if offset != 0 {
		u = k.reg()
	}
	VMOVUPS(at(k.below[0], i, 4, offset), u)
	for _, b := range k.below[1:] {
		VADDPS(at(b, i, 4, offset), u, u)
	}
	VMOVUPS(u, at(k.under, i, 4, offset))
	VADDPS(at(k.above, i, 4, offset), u, u)
	return u
}

// windows sets windowNext to the sums of r elements from each of k.u on; next
// follows k.u and takes its place.
func (k *crossKernel) windows(next reg.VecVirtual) {
	w := k.windowNext
	shifts := k.shifter(k.u, next)
	switch k.r {
	case 1:
		VMOVAPS(k.u, w)
	case 2, 3:
		VADDPS(shifts(1), k.u, w)
	default:
		pair := k.reg()
		VADDPS(shifts(1), k.u, w)
		VADDPS(shifts(3), shifts(2), pair)
		VADDPS(pair, w, w)
	}
	if k.r%2 == 1 && k.r > 1 {
		VADDPS(shifts(k.r-1), w, w)
	}
	if next != k.u {
		VMOVAPS(next, k.u)
	}
}

func (k *crossKernel) advance() {
	VMOVAPS(k.window, k.windowBefore)
	VMOVAPS(k.windowNext, k.window)
}

// score writes the vector of k.window at i.
func (k *crossKernel) score(i reg.Register) {
	PREFETCHT0(at(k.dst, i, 4, scoresAhead))
	w := k.load(at(k.row, i, 4, crossHalo))
	n, q, ri := k.reg(), k.reg(), k.reg()
	right := k.shifter(k.window, k.windowNext)(1)
	left := k.shifter(k.windowBefore, k.window)(k.lanes - k.r)
	VADDPS(left, right, n)
	VADDPS(w, n, n)
	VMAXPS(k.tiny, n, n)
	VDIVPS(n, w, q)
	VMULPS(k.gamma, q, q)
	VADDPS(at(k.b, i, 4, 0), k.a, ri)
	VMULPS(w, ri, ri)
	VADDPS(q, ri, ri)
	VMULPS(at(k.s, i, 4, 0), ri, ri)
	VMOVUPS(ri, at(k.dst, i, 4, 0))
}

// shifter returns the function that gives the vector s elements after lo,
// hi being the one after lo.
func (v isa) shifter(lo, hi reg.VecVirtual) func(s int) reg.VecVirtual {
	if v.wide() {
		return func(s int) reg.VecVirtual {
			x := ZMM()
			VALIGND(operand.U8(uint8(s)), lo, hi, x)
			return x
		}
	}
	var mid reg.VecVirtual
	return func(s int) reg.VecVirtual {
		if mid == nil {
			mid = YMM()
			VPERM2F128(operand.U8(0x21), hi, lo, mid) // upper half of lo, lower half of hi
		}
		x := YMM()
		switch {
		case s < 4:
			VPALIGNR(operand.U8(uint8(4*s)), lo, mid, x)
		case s == 4:
			return mid
		default:
			VPALIGNR(operand.U8(uint8(4*(s-4))), mid, hi, x)
		}
		return x
	}
}

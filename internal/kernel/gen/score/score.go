package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// source is the type in which a kernel reads weights.
type source struct {
	suffix, param string
	size          int // bytes an element
}

var (
	f32  = source{"", "x *float32", 4}
	bf16 = source{"BF16", "x *uint16", 2}
)

// magnitudes returns |x[i]| and those after it, in float32.
func (s source) magnitudes(v isa, x, i reg.Register, offset int, sign reg.VecVirtual) reg.VecVirtual {
	a := v.reg()
	if s.size == 4 {
		v.and(at(x, i, 4, offset), sign, a)
		return a
	}
	VPMOVZXWD(at(x, i, 2, offset), a)
	VPSLLD(operand.U8(16), a, a)
	v.and(sign, a, a)
	return a
}

// fetchedAhead returns the pointer that lies the parameter "ahead" elements after x.
func (s source) fetchedAhead(x reg.Register) reg.Register {
	p := Load(Param("ahead"), GP64())
	LEAQ(operand.Mem{Base: x, Index: p, Scale: uint8(s.size)}, p)
	return p
}

// absSums keeps the 16 sums of a row in registers.
func absSums(v isa, src source) {
	v.function("absSums"+src.suffix, "col, lanes *float64, "+src.param+", ahead int", "")
	col, lanes, x := pointer("col"), pointer("lanes"), pointer("x")
	ahead := src.fetchedAhead(x)
	half := v.lanes / 2 // float64 in a register
	sums := make([]reg.VecVirtual, 16/half)
	for h := range sums {
		sums[h] = v.load(operand.Mem{Base: lanes, Disp: 8 * half * h})
	}
	sign := v.spread(signOff)
	loop(16, func(i reg.Register) {
		PREFETCHT0(at(ahead, i, src.size, 0))
		for h := 0; h < len(sums); h += 2 {
			m := src.magnitudes(v, x, i, half*h, sign)
			lo, hi := v.reg(), v.reg()
			VCVTPS2PD(v.lower(m), lo)
			VCVTPS2PD(v.upper(m), hi)
			for g, a := range []reg.VecVirtual{lo, hi} {
				VADDPD(a, sums[h+g], sums[h+g])
				VADDPD(at(col, i, 8, half*(h+g)), a, a)
				VMOVUPD(a, at(col, i, 8, half*(h+g)))
			}
		}
	})
	for h, sum := range sums {
		VMOVUPD(sum, operand.Mem{Base: lanes, Disp: 8 * half * h})
	}
	ret()
}

// lower and upper return the halves of x.
func (v isa) lower(x reg.VecVirtual) reg.Register {
	if v.wide() {
		return x.AsY()
	}
	return x.AsX()
}

func (v isa) upper(x reg.VecVirtual) reg.Register {
	if v.wide() {
		y := YMM()
		VEXTRACTF64X4(operand.U8(1), x, y)
		return y
	}
	y := XMM()
	VEXTRACTF128(operand.U8(1), x, y)
	return y
}

func abs(v isa, src source) {
	v.function("abs"+src.suffix, "dst *float32, "+src.param+", ahead int", "")
	dst, x := pointer("dst"), pointer("x")
	ahead := src.fetchedAhead(x)
	sign := v.spread(signOff)
	fetch := PREFETCHT0
	if src == bf16 { // whose panels are wider and fill the first-level cache
		fetch = PREFETCHT1
	}
	loop(v.lanes, func(i reg.Register) {
		fetch(at(ahead, i, src.size, 0))
		VMOVUPS(src.magnitudes(v, x, i, 0, sign), at(dst, i, 4, 0))
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

// weightsAhead and scoresAhead are how many elements ahead of x and dst are
// fetched, which no cache holds: the processor's own fetching ends with a page.
const (
	weightsAhead = 512
	scoresAhead  = 256
)

func relativeImportance(v isa, src source) {
	v.function("relativeImportance"+src.suffix, "dst *float32, "+src.param+", b, s *float32, a float32", "")
	dst, x, b, s := pointer("dst"), pointer("x"), pointer("b"), pointer("s")
	a, sign := v.parameter("a"), v.spread(signOff)
	loop(v.lanes, func(i reg.Register) {
		PREFETCHT0(at(x, i, src.size, weightsAhead))
		PREFETCHT0(at(dst, i, 4, scoresAhead))
		w, c := src.magnitudes(v, x, i, 0, sign), v.reg()
		VADDPS(at(b, i, 4, 0), a, c)
		VMULPS(c, w, w)
		VMULPS(at(s, i, 4, 0), w, w)
		VMOVUPS(w, at(dst, i, 4, 0))
	})
	ret()
}

// crossHalo is kernel.Halo.
const crossHalo = 16

// scoreBehind is by how many vectors the score lags behind the neighbourhood it
// divides by. Were both of one vector, the chain of its additions would be
// longer than the processor looks ahead.
const scoreBehind = 4

// crossKernel holds the registers of one cross function. Pointers are to the
// ends, and i counts up to 0.
type crossKernel struct {
	isa
	r                                          int
	dst, ahead, row, above, under, b, s, sides reg.Register
	below                                      []reg.Register
	i                                          reg.Register
	a, gamma, tiny                             reg.VecVirtual
	u                                          reg.VecVirtual // column sums without the row, of the vector last read
	right                                      reg.VecVirtual // sums of the r after each element, of the vector before
}

// cross goes along the row. Reading vector v+1 of the column sums U completes
// the sums of the r elements after each of v, and these, with those of vector v−1,
// the sums of the r elements before each of v.
func cross(v isa, r int) {
	params := "dst, sides, row, above, under, b, s"
	names := []string{"below1", "below2", "below3", "below4", "below5"}[:r]
	for _, n := range names {
		params += ", " + n
	}
	v.function(fmt.Sprint("cross", r), params+" *float32, a, gamma float32, ahead int", "")
	n := Load(Param("n"), GP64())
	end := func(name string, offset int) reg.Register {
		p := pointer(name)
		LEAQ(operand.Mem{Base: p, Index: n, Scale: 4, Disp: 4 * offset}, p)
		return p
	}
	k := crossKernel{
		isa: v, r: r,
		dst: end("dst", 0), sides: end("sides", 0), row: end("row", crossHalo),
		above: end("above", crossHalo), under: end("under", crossHalo),
		b: end("b", 0), s: end("s", 0),
		a: v.parameter("a"), gamma: v.parameter("gamma"), tiny: v.spread(smallest),
		u: v.reg(), right: v.reg(), i: n,
	}
	for _, n := range names {
		k.below = append(k.below, end(n, crossHalo))
	}
	k.ahead = Load(Param("ahead"), GP64())
	LEAQ(operand.Mem{Base: k.dst, Index: k.ahead, Scale: 4}, k.ahead)
	NEGQ(k.i)
	VMOVAPS(k.read(-v.lanes), k.u)
	k.advance(k.read(0))

	const vectors = scoreBehind
	for d := range vectors {
		k.neighbours(d * v.lanes)
	}
	ADDQ(operand.U8(uint8(vectors*v.lanes)), k.i)
	JZ(operand.LabelRef("last"))
	Label("loop")
	k.neighbours(0)
	k.score(-vectors * v.lanes)
	ADDQ(operand.U8(uint8(v.lanes)), k.i)
	JNZ(operand.LabelRef("loop"))
	Label("last")
	for d := range vectors {
		k.score((d - vectors) * v.lanes)
	}
	ret()
}

// read returns the column sums at i + offset and stores their lower part.
func (k *crossKernel) read(offset int) reg.VecVirtual {
	var rows []operand.Op
	for _, b := range k.below {
		rows = append(rows, at(b, k.i, 4, offset))
	}
	sum, u := k.sum(rows), k.reg()
	VMOVUPS(sum, at(k.under, k.i, 4, offset))
	VADDPS(at(k.above, k.i, 4, offset), sum, u)
	return u
}

// advance puts next, which follows k.u, in its place, and the sums to the
// right of k.u into k.right.
func (k *crossKernel) advance(next reg.VecVirtual) {
	shift := k.shifter(k.u, next)
	var right []operand.Op
	for s := 1; s <= k.r; s++ {
		right = append(right, shift(s))
	}
	VMOVAPS(k.sum(right), k.right)
	VMOVAPS(next, k.u)
}

// neighbours stores the sums to the left and right of each of the vector at i + offset.
func (k *crossKernel) neighbours(offset int) {
	before := k.reg()
	VMOVAPS(k.right, before)
	k.advance(k.read(offset + k.lanes))
	sides := k.reg()
	VADDPS(k.shifter(before, k.right)(k.lanes-k.r-1), k.right, sides)
	VMOVUPS(sides, at(k.sides, k.i, 4, offset))
}

// score writes the vector at i + offset. The first-level cache has no room for
// scores to come.
func (k *crossKernel) score(offset int) {
	PREFETCHT1(at(k.ahead, k.i, 4, offset))
	w := k.load(at(k.row, k.i, 4, offset))
	n, q, ri := k.reg(), k.reg(), k.reg()
	VADDPS(at(k.sides, k.i, 4, offset), w, n)
	VMAXPS(k.tiny, n, n)
	VDIVPS(n, w, q)
	VMULPS(k.gamma, q, q)
	VADDPS(at(k.b, k.i, 4, offset), k.a, ri)
	VMULPS(w, ri, ri)
	VADDPS(q, ri, ri)
	VMULPS(at(k.s, k.i, 4, offset), ri, ri)
	VMOVUPS(ri, at(k.dst, k.i, 4, offset))
}

// sum returns the sum of the registers or memory x, in the order of kernel.window.
func (v isa) sum(x []operand.Op) reg.VecVirtual {
	pair := func(a, b operand.Op) reg.VecVirtual {
		r, ok := a.(reg.VecVirtual)
		if !ok {
			r = v.reg()
			VMOVUPS(a, r)
		}
		s := v.reg()
		VADDPS(b, r, s)
		return s
	}
	switch len(x) {
	case 1:
		if r, ok := x[0].(reg.VecVirtual); ok {
			return r
		}
		return v.load(x[0].(operand.Mem))
	case 2:
		return pair(x[0], x[1])
	case 3:
		return pair(pair(x[0], x[1]), x[2])
	case 4:
		return pair(pair(x[0], x[1]), pair(x[2], x[3]))
	}
	return pair(pair(pair(x[0], x[1]), pair(x[2], x[3])), x[4])
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

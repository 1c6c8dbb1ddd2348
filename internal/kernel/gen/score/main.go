// Command score writes the assembly of the kernels in score.go, select.go and excess.go.
//
// A kernel works on blocks: n > 0 elements, a multiple of its step, that Go
// cuts off (score_amd64.go, select_amd64.go); Go does the rest. Both widths
// of vectors add in the order that the Go code has, so results are equal bit
// by bit. Most of these loops wait for memory, so only those that read a
// first-level cache are unrolled.
package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64,!purego")
	for _, v := range []isa{avx512, avx2} {
		for _, src := range []source{f32, bf16} {
			absSums(v, src)
			abs(v, src)
			relativeImportance(v, src)
		}
		scaleAbs(v)
		for r := 1; r <= 5; r++ {
			cross(v, r)
		}
		atLeast(v)
		countBelow(v)
		maxBits(v)
		keepBest(v)
		zeroUnset32(v)
		zeroUnset16(v)
		excess(v)
	}
	Generate()
}

// isa is a width of vectors.
type isa struct {
	name  string
	lanes int // float32 in a register
	reg   func() reg.VecVirtual
}

var (
	avx512 = isa{"AVX512", 16, ZMM}
	avx2   = isa{"AVX2", 8, YMM}
)

func (v isa) wide() bool { return v.lanes == 16 }

// function opens name with the parameters params before "n int".
func (v isa) function(name, params, result string) {
	TEXT(name+v.name, NOSPLIT, "func("+params+", n int)"+result)
	Pragma("noescape")
}

func pointer(name string) reg.Register { return Load(Param(name), GP64()) }

// loop runs body for i = 0, step, … below the parameter n.
func loop(step int, body func(i reg.Register)) {
	n, i := Load(Param("n"), GP64()), GP64()
	XORQ(i, i)
	Label("loop")
	body(i)
	ADDQ(operand.U8(uint8(step)), i)
	CMPQ(i, n)
	JLT(operand.LabelRef("loop"))
}

func ret() {
	VZEROUPPER()
	RET()
}

// at is element i + offset of base, whose elements have size bytes.
func at(base, i reg.Register, size, offset int) operand.Mem {
	return operand.Mem{Base: base, Index: i, Scale: uint8(size), Disp: size * offset}
}

// load returns a register holding v.lanes float32 from m.
func (v isa) load(m operand.Mem) reg.VecVirtual {
	x := v.reg()
	VMOVUPS(m, x)
	return x
}

func (v isa) zero() reg.VecVirtual {
	x := v.reg()
	if v.wide() {
		VPXORD(x, x, x)
	} else {
		VPXOR(x, x, x)
	}
	return x
}

// and sets dst to a & b.
func (v isa) and(a operand.Op, b, dst reg.VecVirtual) {
	if v.wide() {
		VPANDD(a, b, dst)
	} else {
		VPAND(a, b, dst)
	}
}

// spread returns a register with value in every 4-byte lane.
func (v isa) spread(value uint32) reg.VecVirtual {
	x := v.reg()
	VPBROADCASTD(table(value), x)
	return x
}

// parameter returns a register with the float32 parameter in every lane.
func (v isa) parameter(name string) reg.VecVirtual {
	s, x := Load(Param(name), XMM()), v.reg()
	VBROADCASTSS(s, x)
	return x
}

const (
	signOff  = 0x7fffffff // all bits of a float32 but the sign
	smallest = 1          // bits of the smallest positive float32
)

var tables = map[string]operand.Mem{}

// table is values in read-only memory.
func table(values ...uint32) operand.Mem {
	key := fmt.Sprint(values)
	m, ok := tables[key]
	if !ok {
		m = GLOBL(fmt.Sprintf("score%d", len(tables)), attr.RODATA|attr.NOPTR)
		for i, v := range values {
			DATA(4*i, operand.U32(v))
		}
		tables[key] = m
	}
	return m
}

// returnTop returns the greatest of the unsigned 4-byte lanes of x.
func (v isa) returnTop(x reg.VecVirtual) {
	if v.wide() {
		hi := YMM()
		VEXTRACTI64X4(operand.U8(1), x, hi)
		VPMAXUD(x.AsY(), hi, hi)
		x = hi
	}
	hi, t := XMM(), XMM()
	VEXTRACTI128(operand.U8(1), x.AsY(), hi)
	VPMAXUD(x.AsX(), hi, t)
	VPSHUFD(operand.U8(0b11_10), t, hi)
	VPMAXUD(hi, t, t)
	VPSHUFD(operand.U8(0b01), t, hi)
	VPMAXUD(hi, t, t)
	top := GP32()
	VMOVD(t, top)
	Store(top, ReturnIndex(0))
	ret()
}

// Command vector writes the assembly of the kernels in vector.go.
//
// A kernel works on blocks: n > 0 elements, a multiple of its step, that Go
// cuts off (vector_amd64.go); Go does the rest. The loops are bound by memory
// or by latencies that out-of-order execution hides, so only reductions are
// unrolled, to two accumulators.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64,!purego")
	for _, v := range []isa{avx512, avx2} {
		widenBF16(v)
		widenF16(v)
		narrowBF16(v)
		addSquares(v)
		add(v)
		sumSquares(v)
		scaleMul(v)
		rope(v)
		maximum(v)
		siluMul(v)
		sumExp(v)
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

// half returns the register that holds half of v's lanes.
func (v isa) half() reg.VecVirtual {
	if v.lanes == 16 {
		return YMM()
	}
	return XMM()
}

// function opens name with the pointers that params list before "n int".
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

// spread returns a register with value in every lane.
func (v isa) spread(value operand.Constant) reg.VecVirtual {
	x := v.reg()
	VBROADCASTSS(constant(value), x)
	return x
}

var constants = map[operand.Constant]operand.Mem{}

// constant is a 4-byte value in read-only memory.
func constant(value operand.Constant) operand.Mem {
	m, ok := constants[value]
	if !ok {
		m = ConstData("vector"+letters(len(constants)), value)
		constants[value] = m
	}
	return m
}

var constants8 = map[operand.Constant]operand.Mem{}

// constant8 is value eight times in read-only memory.
func constant8(value operand.Constant) operand.Mem {
	m, ok := constants8[value]
	if !ok {
		m = GLOBL("vector8"+letters(len(constants8)), attr.RODATA|attr.NOPTR)
		for i := range 8 {
			DATA(4*i, value)
		}
		constants8[value] = m
	}
	return m
}

func letters(i int) string { return string(rune('A' + i)) }

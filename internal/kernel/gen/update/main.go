// Command update writes the assembly of the kernel in update.go.
//
// The kernel works on blocks: n > 0 elements, a multiple of its step, that Go
// cuts off (update_amd64.go); Go does the rest. What it reads lies in the first
// cache, and the runs are short, so it is not unrolled.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64,!purego")
	subScaled("AVX512", 16, ZMM)
	subScaled("AVX2", 8, YMM)
	Generate()
}

func subScaled(isa string, lanes int, vector func() reg.VecVirtual) {
	TEXT("subScaled"+isa, NOSPLIT, "func(dst, x *float32, e float32, n int)")
	Pragma("noescape")
	dst, x := Load(Param("dst"), GP64()), Load(Param("x"), GP64())
	e, u := Load(Param("e"), XMM()), vector()
	VBROADCASTSS(e, u)
	n, i := Load(Param("n"), GP64()), GP64()
	XORQ(i, i)
	Label("loop")
	v, d := vector(), vector()
	VMULPS(operand.Mem{Base: x, Index: i, Scale: 4}, u, v)
	VMOVUPS(operand.Mem{Base: dst, Index: i, Scale: 4}, d)
	VSUBPS(v, d, d)
	VMOVUPS(d, operand.Mem{Base: dst, Index: i, Scale: 4})
	ADDQ(operand.U8(uint8(lanes)), i)
	CMPQ(i, n)
	JLT(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

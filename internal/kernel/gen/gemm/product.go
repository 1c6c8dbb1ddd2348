package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// blockK is the constant of package kernel: the distance, in depth units of 4
// bytes, of the rows of packed x.
const blockK = 528

// unroll hides the loop's own three instructions behind the multiplications.
const unroll = 4

// mulTile generates tile.mul for rows × two vectors. All accumulators stay in
// registers: 12 × 2 of AVX-512's 32, 6 × 2 of AVX2's 16, which leaves two for b
// and two or more for broadcast x. With stream it is tile.stream.
func mulTile(v vector, rows int, bfloat, stream bool) {
	field, kind := "mul", ""
	if stream {
		field = "stream"
	}
	if bfloat {
		kind = "BF16"
	}
	name := fmt.Sprintf("%s%dx%d%s%s", field, rows, 2*v.lanes, kind, v.name)
	function(name, "func(dst *float32, ldd int, from *float32, ldf int, a *float32, b *float32, depth int, next *float32)",
		fmt.Sprintf("%s is tile.%s for %d × %d.", name, field, rows, 2*v.lanes))

	dst := Load(Param("dst"), reg.RDI).(reg.GPPhysical)
	ldd := Load(Param("ldd"), reg.RSI).(reg.GPPhysical)
	a := Load(Param("a"), reg.RAX).(reg.GPPhysical)
	b := Load(Param("b"), reg.RBX).(reg.GPPhysical)
	depth := Load(Param("depth"), reg.RCX).(reg.GPPhysical)
	next := Load(Param("next"), reg.R10).(reg.GPPhysical)
	rest := reg.RDX
	row := reg.R8
	from := Load(Param("from"), reg.R9).(reg.GPPhysical)
	ldf := Load(Param("ldf"), reg.R11).(reg.GPPhysical)

	SHLQ(operand.Imm(2), ldd)
	SHLQ(operand.Imm(2), ldf)
	acc := v.all[:2*rows]
	w := v.all[2*rows : 2*rows+2]
	xs := v.all[2*rows+2:]
	for _, r := range acc {
		v.zero(r)
	}
	// These come from a farther cache, and are needed at the end only.
	prefetch := func(base, ld reg.GPPhysical) {
		MOVQ(base, row)
		for r := range rows {
			PREFETCHT0(mem(row, 0))
			PREFETCHT0(mem(row, 2*v.bytes()-1))
			if r < rows-1 {
				ADDQ(ld, row)
			}
		}
	}
	TESTQ(from, from)
	JZ(operand.LabelRef("begin"))
	prefetch(from, ldf)
	CMPQ(from, dst)
	JEQ(operand.LabelRef("begun"))
	Label("begin")
	if !stream {
		prefetch(dst, ldd)
	}
	Label("begun")

	step := func(u int) {
		for i := range 2 {
			VMOVUPS(mem(b, (2*u+i)*v.bytes()), w[i])
		}
		for r := range rows {
			x := xs[r%len(xs)]
			VBROADCASTSS(mem(a, 4*(r*blockK+u)), x)
			for i := range 2 {
				if bfloat {
					vdpbf16ps(acc[2*r+i], w[i], x)
				} else {
					VFMADD231PS(w[i], x, acc[2*r+i])
				}
			}
		}
	}
	advance := func(units int) {
		ADDQ(operand.I32(4*units), a)
		ADDQ(operand.I32(2*v.bytes()*units), b)
	}

	MOVQ(depth, rest)
	ANDQ(operand.Imm(unroll-1), rest)
	SHRQ(operand.Imm(2), depth)
	JZ(operand.LabelRef("tail"))
	Label("loop")
	PREFETCHT1(mem(next, 0))
	ADDQ(operand.Imm(4*unroll), next)
	for u := range unroll {
		step(u)
	}
	advance(unroll)
	DECQ(depth)
	JNZ(operand.LabelRef("loop"))
	Label("tail")
	TESTQ(rest, rest)
	JZ(operand.LabelRef("store"))
	Label("one")
	step(0)
	advance(1)
	DECQ(rest)
	JNZ(operand.LabelRef("one"))

	Label("store")
	TESTQ(from, from)
	JZ(operand.LabelRef("write"))
	for r := range rows {
		for i := range 2 {
			VADDPS(mem(from, i*v.bytes()), acc[2*r+i], acc[2*r+i])
		}
		if r < rows-1 {
			ADDQ(ldf, from)
		}
	}
	Label("write")
	for r := range rows {
		for i := range 2 {
			if stream {
				VMOVNTPS(acc[2*r+i], mem(dst, i*v.bytes()))
			} else {
				VMOVUPS(acc[2*r+i], mem(dst, i*v.bytes()))
			}
		}
		if r < rows-1 {
			ADDQ(ldd, dst)
		}
	}
	ret()
}

// storeFence generates the end of a run of streamed stores.
func storeFence() {
	TEXT("storeFence", NOSPLIT, "func()")
	Doc("storeFence orders what tile.stream has stored before what this goroutine stores later.")
	SFENCE()
	RET()
}

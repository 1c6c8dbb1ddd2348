package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// dotsRows is the number of rows of b that a call of dots reads side by side:
// enough multiply-adds to hide their latency, and enough streams of memory.
const dotsRows = 4

// dotsTokens is the largest number of rows of x: all sums, the x and one row
// of b are in registers.
const dotsTokens = 3

// ahead is how many bytes ahead of what is read weights are prefetched. The hardware's
// prefetchers begin anew with every page, and are late for packed rows: without, products
// with packed weights had two thirds of the speed (one core of Zen 5), and those with
// plain ones 0.75 to 0.9 (one core of Cascade Lake). From 2048 on it stays.
const ahead = 2048

// The kinds of dots: how one vector of b is loaded.
var dotsKinds = []struct {
	name  string
	bytes func(v vector) int // of b and x a block takes
	load  func(v vector, from operand.Mem, to reg.VecPhysical)
}{
	{"F32", vector.bytes, func(v vector, from operand.Mem, to reg.VecPhysical) { VMOVUPS(from, to) }},
	{"BF16", func(v vector) int { return v.bytes() / 2 }, func(v vector, from operand.Mem, to reg.VecPhysical) {
		VPMOVZXWD(from, to)
		VPSLLD(operand.Imm(16), to, to)
	}},
	{"F16", func(v vector) int { return v.bytes() / 2 }, func(v vector, from operand.Mem, to reg.VecPhysical) {
		VCVTPH2PS(from, to)
	}},
}

// dots generates the products of 1 to dotsTokens rows of x with dotsRows rows
// of b of one kind. Of pairs, both are bfloat16 and multiplied by VDPBF16PS.
func dots(v vector, tokens int, kind string, bytes int, pairs bool, load func(v vector, from operand.Mem, to reg.VecPhysical)) {
	name := fmt.Sprintf("dots%d%s%s", tokens, kind, v.name)
	function(name, "func(dst *float32, x *byte, ldx int, b *byte, ldb int, blocks int, groups int)",
		fmt.Sprintf("%s is dotsKernel for %d rows of x.", name, tokens))
	dst := Load(Param("dst"), reg.RDI).(reg.GPPhysical)
	x := Load(Param("x"), reg.RAX).(reg.GPPhysical)
	ldx := Load(Param("ldx"), reg.RDX).(reg.GPPhysical)
	b := Load(Param("b"), reg.RBX).(reg.GPPhysical)
	ldb := Load(Param("ldb"), reg.RSI).(reg.GPPhysical)
	blocks := Load(Param("blocks"), reg.R11).(reg.GPPhysical)
	groups := Load(Param("groups"), reg.R12).(reg.GPPhysical)
	left, size := reg.RCX, reg.R10 // blocks of this group; bytes of a row of x
	IMUL3Q(operand.I32(v.bytes()), blocks, size)

	four := func(base, ld, ld3 reg.GPPhysical) []operand.Mem {
		LEAQ(operand.Mem{Base: ld, Index: ld, Scale: 2}, ld3)
		return []operand.Mem{mem(base, 0), indexed(base, ld), {Base: base, Index: ld, Scale: 2}, indexed(base, ld3)}
	}
	xs, bs := four(x, ldx, reg.R8), four(b, ldb, reg.R9)
	acc := v.all[:tokens*dotsRows]
	xr := v.all[len(acc) : len(acc)+tokens]
	w := v.all[len(acc)+tokens]
	Label("group")
	MOVQ(blocks, left)
	for _, r := range acc {
		v.zero(r)
	}
	Label("loop")
	for t := range tokens {
		VMOVUPS(xs[t], xr[t])
	}
	for r := range dotsRows {
		load(v, bs[r], w)
		to := bs[r]
		to.Disp += ahead
		PREFETCHT0(to)
		for t := range tokens {
			if pairs {
				vdpbf16ps(acc[t*dotsRows+r], w, xr[t])
			} else {
				VFMADD231PS(w, xr[t], acc[t*dotsRows+r])
			}
		}
	}
	ADDQ(operand.I32(v.bytes()), x)
	ADDQ(operand.I32(bytes), b)
	DECQ(left)
	JNZ(operand.LabelRef("loop"))
	for i, r := range acc {
		v.reduce(r, w, func(b, a, dst operand.Op) { VADDPS(b, a, dst) })
		VMOVSS(r.AsX(), mem(dst, 4*i))
	}
	ADDQ(operand.I32(4*len(acc)), dst)
	SUBQ(size, x)
	DECQ(groups)
	JNZ(operand.LabelRef("group"))
	ret()
}

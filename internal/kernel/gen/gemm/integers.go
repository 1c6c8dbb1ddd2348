package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// codebook is what the integers of 4 bits are, by their bits.
var codebook = [16]float32{0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1}

// integerDots generates packedDots for integers of 8 or 4 bits with scales. Every weight
// is computed as the float32 that it stands for, which is exact. What 16 integers of 4
// bits can be is in a register, times the scale. Where all elements are stored, full, the
// mask is not read.
func integerDots(bits, tokens int, full bool, book operand.Mem) {
	v := avx512
	name := fmt.Sprintf("packed%dInt%d%s", tokens, bits, v.name)
	if full {
		name = fmt.Sprintf("full%dInt%d%s", tokens, bits, v.name)
	}
	function(name, "func(dst *float32, x *byte, ldx int, values *byte, first *int64, mask *byte, ldm int, scales *float32, lds int, perScale int, blocks int, groups int)",
		fmt.Sprintf("%s is integersKernel for %d rows of x.", name, tokens))
	x := reg.RAX
	ldx := Load(Param("ldx"), reg.RDX).(reg.GPPhysical)
	mask := Load(Param("mask"), reg.RBX).(reg.GPPhysical)
	ldm := Load(Param("ldm"), reg.RSI).(reg.GPPhysical)
	lds := Load(Param("lds"), reg.R15).(reg.GPPhysical)
	left, of, scales, set := reg.RCX, reg.RDI, reg.R14, reg.R13
	values := []reg.GPPhysical{reg.R9, reg.R10, reg.R11, reg.R12}
	ldm3 := reg.R8
	LEAQ(operand.Mem{Base: ldm, Index: ldm, Scale: 2}, ldm3)
	masks := []operand.Mem{mem(mask, 0), indexed(mask, ldm), {Base: mask, Index: ldm, Scale: 2}, indexed(mask, ldm3)}
	xs := []operand.Mem{mem(x, 0), indexed(x, ldx), {Base: x, Index: ldx, Scale: 2}}
	acc := v.all[:tokens*dotsRows]
	xr := v.all[len(acc) : len(acc)+tokens]
	scale := v.all[len(acc)+tokens:][:dotsRows]
	spare := v.all[len(acc)+tokens+dotsRows:]
	all, spare := spare[0], spare[1:] // the codebook
	ks := []reg.Register{reg.K1, reg.K2, reg.K3, reg.K4}
	if bits == 4 {
		VMOVUPS(book, all)
	}
	Label("group")
	Comment("Where the rows' values begin, and the next group's")
	MOVQ(argument("first"), set)
	Load(Param("values"), x)
	for r, at := range values {
		MOVQ(mem(set, 8*r), at)
		ADDQ(x, at)
	}
	ADDQ(operand.Imm(8*dotsRows), set)
	MOVQ(set, argument("first"))
	next := prefetchNext(tokens, set, 1)
	Load(Param("scales"), scales)
	LEAQ(mem(scales, 4*dotsRows), set)
	MOVQ(set, argument("scales"))
	Load(Param("x"), x)
	Load(Param("blocks"), left)
	for _, r := range acc {
		v.zero(r)
	}
	Label("scale")
	Load(Param("perScale"), of)
	CMPQ(left, of)
	CMOVQLT(left, of)
	SUBQ(of, left)
	for r, to := range scale {
		VBROADCASTSS(mem(scales, 4*r), to)
		if bits == 4 {
			VMULPS(all, to, to)
		}
	}
	ADDQ(lds, scales)
	Label("loop")
	for t := range tokens {
		VMOVUPS(xs[t], xr[t])
	}
	for r := range dotsRows {
		w := spare[2*r%(len(spare)-1)]
		if !full {
			MOVWLZX(masks[r], set.As32())
			KMOVW(set.As32(), ks[r])
		}
		if bits == 8 {
			VPMOVSXBD(mem(values[r], 0), w)
			VCVTDQ2PS(w, w)
			VMULPS(scale[r], w, w)
		} else {
			high := spare[2*r%(len(spare)-1)+1]
			Comment("A byte in 8: its lower half in the lower 4, its upper half in the upper 4")
			VPMOVZXBQ(mem(values[r], 0), w)
			VPSLLQ(operand.Imm(28), w, high)
			VPORQ(high, w, w)
			VPERMPS(scale[r], w, w)
		}
		if !full {
			VPEXPANDD_Z(w, ks[r], w)
		}
		PREFETCHT0(next(values[r]))
		if full {
			ADDQ(operand.Imm(uint64(v.lanes*bits/8)), values[r])
		} else {
			POPCNTL(set.As32(), set.As32())
			if bits == 4 {
				INCL(set.As32())
				SHRL(operand.Imm(1), set.As32())
			}
			ADDQ(set, values[r])
		}
		for t := range tokens {
			VFMADD231PS(w, xr[t], acc[t*dotsRows+r])
		}
	}
	ADDQ(operand.I32(v.bytes()), x)
	if !full {
		ADDQ(operand.Imm(2), mask)
	}
	DECQ(of)
	JNZ(operand.LabelRef("loop"))
	TESTQ(left, left)
	JNZ(operand.LabelRef("scale"))
	Load(Param("dst"), set)
	for i, r := range acc {
		v.reduce(r, spare[0], func(b, a, dst operand.Op) { VADDPS(b, a, dst) })
		VMOVSS(r.AsX(), mem(set, 4*i))
	}
	ADDQ(operand.I32(4*len(acc)), set)
	MOVQ(set, argument("dst"))
	ADDQ(ldm3, mask)
	MOVQ(argument("groups"), set)
	DECQ(set)
	MOVQ(set, argument("groups"))
	JNZ(operand.LabelRef("group"))
	ret()
}

// argument is where an argument of the function lies, to be read and changed.
func argument(name string) operand.Mem {
	at, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return at.Addr
}

// codebookData returns where the codebook is.
func codebookData() operand.Mem {
	table := GLOBL("int4Codebook", RODATA|NOPTR)
	for i, c := range codebook {
		DATA(4*i, operand.F32(c))
	}
	return table
}

// expandIntegers generates expandInt8 for whole blocks of 8.
func expandIntegers() {
	v := avx2
	function("expandInt8AVX2", "func(dst *uint16, mask *byte, values *int8, scale float32, table *byte, blocks int) *int8",
		"expandInt8AVX2 is expandInt8 for whole blocks of 8, at least one; it returns where the next value is.")
	dst := Load(Param("dst"), reg.RAX).(reg.GPPhysical)
	mask := Load(Param("mask"), reg.RBX).(reg.GPPhysical)
	values := Load(Param("values"), reg.RDX).(reg.GPPhysical)
	table := Load(Param("table"), reg.RDI).(reg.GPPhysical)
	blocks := Load(Param("blocks"), reg.RCX).(reg.GPPhysical)
	bits, w, scale := reg.R8, v.all[0], v.all[1]
	VBROADCASTSS(argument("scale"), scale)
	Label("loop")
	MOVBLZX(mem(mask, 0), bits.As32())
	VPMOVSXBW(mem(values, 0), w.AsX())
	SHLL(operand.Imm(3), bits.As32())
	VPSHUFB(operand.Mem{Base: table, Index: bits, Scale: 2}, w.AsX(), w.AsX())
	VPMOVSXWD(w.AsX(), w)
	VCVTDQ2PS(w, w)
	VMULPS(scale, w, w)
	VPSRLD(operand.Imm(16), w, w)
	VPACKUSDW(w, w, w)
	VPERMQ(operand.Imm(0xd8), w, w)
	VMOVDQU(w.AsX(), mem(dst, 0))
	POPCNTL(bits.As32(), bits.As32())
	ADDQ(bits, values)
	ADDQ(operand.Imm(16), dst)
	INCQ(mask)
	DECQ(blocks)
	JNZ(operand.LabelRef("loop"))
	Store(values, ReturnIndex(0))
	ret()
}

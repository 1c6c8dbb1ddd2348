package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// expander is a way to write out the stored elements of a block of a row, as many
// float32 lanes, or pairs of bfloat16, as a register has.
type expander struct {
	name  string
	bits  int // elements of a block
	pairs bool
	v     vector

	// expand loads the block's values from *values and puts them in their places; its
	// bits are in mask. table is the address of the tables of AVX2.
	expand func(values operand.Mem, mask reg.GPPhysical, table reg.Register, k reg.Register, to reg.VecPhysical)
	load   func(from operand.Mem, mask reg.GPPhysical)
}

// The expanders of bfloat16.
var expanders = []expander{
	{"Pairs", 32, true, avx512, func(values operand.Mem, mask reg.GPPhysical, _, k reg.Register, to reg.VecPhysical) {
		KMOVD(mask.As32(), k)
		VMOVUPS(values, to)
		VPEXPANDW_Z(to, k, to)
	}, func(from operand.Mem, mask reg.GPPhysical) { MOVL(from, mask.As32()) }},
	{"BF16", 16, false, avx512, func(values operand.Mem, mask reg.GPPhysical, _, k reg.Register, to reg.VecPhysical) {
		KMOVW(mask.As32(), k)
		VPMOVZXWD(values, to)
		VPSLLD(operand.Imm(16), to, to)
		VPEXPANDD_Z(to, k, to)
	}, func(from operand.Mem, mask reg.GPPhysical) { MOVWLZX(from, mask.As32()) }},
	{"BF16", 8, false, avx2, func(values operand.Mem, mask reg.GPPhysical, table, _ reg.Register, to reg.VecPhysical) {
		expandEight(values, mask, table, to.AsX())
		VPMOVZXWD(to.AsX(), to)
		VPSLLD(operand.Imm(16), to, to)
	}, func(from operand.Mem, mask reg.GPPhysical) { MOVBLZX(from, mask.As32()) }},
}

// expandEight puts up to eight words in the places that the bits of a byte say, by a
// shuffle from the table, which has 16 bytes for each byte. The bits stay as many.
func expandEight(values operand.Mem, mask reg.GPPhysical, table reg.Register, to reg.Register) {
	VMOVDQU(values, to)
	SHLL(operand.Imm(3), mask.As32())
	VPSHUFB(operand.Mem{Base: table, Index: mask, Scale: 2}, to, to)
}

// packedDots generates the products of rows of x with dotsRows rows of a packed b: the
// sums of dots to the same bits. The rows of a group follow each other, unlike those of
// dots: a packed row is short, and four of them are one stream of memory.
func packedDots(e expander, tokens int) {
	v := e.v
	name := fmt.Sprintf("packed%d%s%s", tokens, e.name, v.name)
	function(name, "func(dst *float32, x *byte, ldx int, values *uint16, first *int64, mask *byte, ldm int, table *byte, blocks int, groups int)",
		fmt.Sprintf("%s is packedKernel for %d rows of x.", name, tokens))
	x := reg.RAX
	ldx := Load(Param("ldx"), reg.RDX).(reg.GPPhysical)
	mask := Load(Param("mask"), reg.RBX).(reg.GPPhysical)
	ldm := Load(Param("ldm"), reg.RSI).(reg.GPPhysical)
	blocks := reg.RCX
	table := Load(Param("table"), reg.RDI).(reg.GPPhysical)
	dst := Load(Param("dst"), reg.R14).(reg.GPPhysical)
	groups := Load(Param("groups"), reg.R15).(reg.GPPhysical)
	bits := reg.R13
	values := []reg.GPPhysical{reg.R9, reg.R10, reg.R11, reg.R12}
	ldm3 := reg.R8
	LEAQ(operand.Mem{Base: ldm, Index: ldm, Scale: 2}, ldm3)
	masks := []operand.Mem{mem(mask, 0), indexed(mask, ldm), {Base: mask, Index: ldm, Scale: 2}, indexed(mask, ldm3)}
	xs := []operand.Mem{mem(x, 0), indexed(x, ldx), {Base: x, Index: ldx, Scale: 2}}
	acc := v.all[:tokens*dotsRows]
	xr := v.all[len(acc) : len(acc)+tokens]
	spare := v.all[len(acc)+tokens:]
	ks := []reg.Register{reg.K1, reg.K2, reg.K3, reg.K4}
	Label("group")
	Comment("Where the rows' values begin, and the next group's")
	MOVQ(argument("first"), bits)
	Load(Param("values"), x)
	for r, at := range values {
		MOVQ(mem(bits, 8*r), at)
		LEAQ(operand.Mem{Base: x, Index: at, Scale: 2}, at)
	}
	ADDQ(operand.Imm(8*dotsRows), bits)
	MOVQ(bits, argument("first"))
	next := prefetchNext(tokens, bits, 2)
	Load(Param("x"), x)
	Load(Param("blocks"), blocks)
	for _, r := range acc {
		v.zero(r)
	}
	Label("loop")
	for t := range tokens {
		VMOVUPS(xs[t], xr[t])
	}
	for r := range dotsRows {
		w := spare[r%len(spare)]
		e.load(masks[r], bits)
		e.expand(mem(values[r], 0), bits, table, ks[r], w)
		PREFETCHT0(next(values[r]))
		POPCNTL(bits.As32(), bits.As32())
		LEAQ(operand.Mem{Base: values[r], Index: bits, Scale: 2}, values[r])
		for t := range tokens {
			if e.pairs {
				vdpbf16ps(acc[t*dotsRows+r], w, xr[t])
			} else {
				VFMADD231PS(w, xr[t], acc[t*dotsRows+r])
			}
		}
	}
	ADDQ(operand.I32(v.bytes()), x)
	ADDQ(operand.I32(e.bits/8), mask)
	DECQ(blocks)
	JNZ(operand.LabelRef("loop"))
	for i, r := range acc {
		v.reduce(r, spare[0], func(b, a, dst operand.Op) { VADDPS(b, a, dst) })
		VMOVSS(r.AsX(), mem(dst, 4*i))
	}
	ADDQ(operand.I32(4*len(acc)), dst)
	ADDQ(ldm3, mask)
	DECQ(groups)
	JNZ(operand.LabelRef("group"))
	ret()
}

// prefetchNext returns what of a row's values is prefetched when those at the given
// address are read: with one token what is there in the next group, whose values begin
// at element *first. So all four rows are, however short.
func prefetchNext(tokens int, first reg.GPPhysical, size uint8) func(at reg.GPPhysical) operand.Mem {
	if tokens > 1 {
		return func(at reg.GPPhysical) operand.Mem { return mem(at, ahead) }
	}
	apart := reg.RDX // ldx is not needed
	MOVQ(mem(first, 0), apart)
	SUBQ(mem(first, -8*dotsRows), apart)
	if size > 1 {
		SHLQ(operand.Imm(1), apart)
	}
	return func(at reg.GPPhysical) operand.Mem { return indexed(at, apart) }
}

// expandWords generates expand16 for whole blocks: of 32 words by VPEXPANDW, of 8 by
// the table.
func expandWords(v vector) {
	name := "expand16" + v.name
	function(name, "func(dst *uint16, mask *byte, values *uint16, table *byte, blocks int) *uint16",
		name+" is expand16 for whole blocks, at least one; it returns where the next value is.")
	dst := Load(Param("dst"), reg.RAX).(reg.GPPhysical)
	mask := Load(Param("mask"), reg.RBX).(reg.GPPhysical)
	values := Load(Param("values"), reg.RDX).(reg.GPPhysical)
	table := Load(Param("table"), reg.RDI).(reg.GPPhysical)
	blocks := Load(Param("blocks"), reg.RCX).(reg.GPPhysical)
	bits, w := reg.R8, v.all[0]
	Label("loop")
	size := 16
	if v.wide() {
		size = 64
		MOVL(mem(mask, 0), bits.As32())
		KMOVD(bits.As32(), reg.K1)
		VMOVUPS(mem(values, 0), w)
		VPEXPANDW_Z(w, reg.K1, w)
		VMOVUPS(w, mem(dst, 0))
	} else {
		MOVBLZX(mem(mask, 0), bits.As32())
		expandEight(mem(values, 0), bits, table, w.AsX())
		VMOVDQU(w.AsX(), mem(dst, 0))
	}
	POPCNTL(bits.As32(), bits.As32())
	LEAQ(operand.Mem{Base: values, Index: bits, Scale: 2}, values)
	ADDQ(operand.I32(size), dst)
	ADDQ(operand.I32(size/16), mask)
	DECQ(blocks)
	JNZ(operand.LabelRef("loop"))
	Store(values, ReturnIndex(0))
	ret()
}

package main

import (
	"encoding/binary"
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Minimax polynomials of 2^f on |f| ≤ 1/2, constant term first: relatively off
// by 2^−13.7 and 2^−25.9 in exact arithmetic.
var (
	coarse = []float32{0.99992806, 0.69326097, 0.24261113, 0.055171669}
	fine   = []float32{1, 0.6931472, 0.24022646, 0.055503286, 0.009618489, 0.001339993, 0.00015345812}
)

// exp2 replaces x by 2^x by the polynomial in poly; f and p are spent.
func exp2(x, f, p reg.VecPhysical, poly []reg.VecPhysical) {
	VRNDSCALEPS(operand.Imm(nearest), x, f)
	VSUBPS(f, x, x)
	last := len(poly) - 1
	VMOVAPS(poly[last], p)
	for i := last - 1; i >= 0; i-- {
		VFMADD213PS(poly[i], x, p)
	}
	VSCALEFPS(f, p, x)
}

// expBF16 generates expBF16 for whole vectors.
func expBF16() {
	const name = "expBF16AVX512"
	function(name, "func(dst *uint16, s *float32, vectors int, scale float32, top float32) float32",
		name+" is expBF16 for whole vectors, at least one; it needs AVX512_BF16.")
	dst, s := pointer("dst", reg.RDI), pointer("s", reg.RSI)
	n := pointer("vectors", reg.RCX)
	z := avx512.all
	x, f, p, sum, scale, top, least, poly := z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7:11]
	spread("scale", scale)
	spread("top", top)
	constants(name+"Constants", append([]float32{-150}, coarse...), append([]reg.VecPhysical{least}, poly...))
	VPXORD(sum, sum, sum)
	loop(n, func() {
		VMOVUPS(mem(s), x)
		VFMSUB213PS(top, scale, x)
		VMAXPS(x, least, x) // NaN stays
		exp2(x, f, p, poly)
		VADDPS(x, sum, sum)
		narrow(x, x)
		VMOVUPS(x.AsY(), mem(dst))
	}, map[reg.Register]int{dst: 32, s: 64})
	reduce(sum, x)
	Store(sum.AsX(), ReturnIndex(0))
	ret()
}

// reduce adds the lanes of r into its lowest.
func reduce(r, tmp reg.VecPhysical) {
	VEXTRACTF32X8(operand.Imm(1), r, tmp.AsY())
	VADDPS(tmp.AsY(), r.AsY(), r.AsY())
	VEXTRACTF128(operand.Imm(1), r.AsY(), tmp.AsX())
	VADDPS(tmp.AsX(), r.AsX(), r.AsX())
	VPSHUFD(operand.Imm(0x4e), r.AsX(), tmp.AsX())
	VADDPS(tmp.AsX(), r.AsX(), r.AsX())
	VPSHUFD(operand.Imm(0xb1), r.AsX(), tmp.AsX())
	VADDPS(tmp.AsX(), r.AsX(), r.AsX())
}

// capRow generates capRow for whole vectors, slope being 2·scale·log₂e/limit.
func capRow() {
	const name = "capRowAVX512"
	function(name, "func(s *float32, vectors int, slope float32, limit float32)",
		name+" is capRow for whole vectors, at least one; slope is 2·scale·log₂e/limit.")
	s := pointer("s", reg.RSI)
	n := pointer("vectors", reg.RCX)
	z := avx512.all
	x, f, p, slope, limit, twice, least, most, poly := z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7], z[8:15]
	spread("slope", slope)
	spread("limit", limit)
	VADDPS(limit, limit, twice)
	// Beyond 2^±60 the quotient is 0 or 2 in float32.
	constants(name+"Constants", append([]float32{-60, 60}, fine...), append([]reg.VecPhysical{least, most}, poly...))
	loop(n, func() {
		VMULPS(mem(s), slope, x)
		VMAXPS(x, least, x) // NaN stays
		VMINPS(x, most, x)
		exp2(x, f, p, poly)
		VADDPS(poly[0], x, x) // which is 1
		VDIVPS(x, twice, x)
		VSUBPS(x, limit, x)
		VMOVUPS(x, mem(s))
	}, map[reg.Register]int{s: 64})
	ret()
}

// narrow rounds the float32 of src to bfloat16 in the lower half of dst. Go's
// assembler does not know VCVTNEPS2BF16.
func narrow(src, dst reg.VecPhysical) {
	code := evexNarrow(number(dst), number(src))
	Comment(fmt.Sprintf("VCVTNEPS2BF16 %s, %s", src.Asm(), dst.AsY().Asm()))
	Instruction(&ir.Instruction{
		Opcode:   "LONG",
		Operands: []operand.Op{operand.U32(binary.LittleEndian.Uint32(code[:4]))},
	})
	Instruction(&ir.Instruction{
		Opcode:   "WORD",
		Operands: []operand.Op{operand.U16(binary.LittleEndian.Uint16(code[4:]))},
	})
}

func number(r reg.VecPhysical) byte { return byte(reg.ToPhysical(r).PhysicalIndex()) }

// evexNarrow is VCVTNEPS2BF16 ymm_dst, zmm_src: EVEX.512.F3.0F38.W0 72 /r,
// Intel SDM volume 2, section 2.7. The prefix holds the upper bits of the
// register numbers, inverted; the second source, unused, is all ones.
func evexNarrow(dst, src byte) [6]byte {
	not := func(number byte, bit int) byte { return ^number >> bit & 1 }
	const (
		map0F38 = 2
		ppF3    = 2
		unused  = 15 << 3
		fixed1  = 1 << 2
		l512    = 2 << 5
		unused4 = 1 << 3
	)
	return [6]byte{
		0x62,
		not(dst, 3)<<7 | not(src, 4)<<6 | not(src, 3)<<5 | not(dst, 4)<<4 | map0F38,
		unused | fixed1 | ppF3,
		l512 | unused4,
		0x72,
		0xc0 | dst&7<<3 | src&7,
	}
}

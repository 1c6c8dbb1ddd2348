package main

import (
	"encoding/binary"
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vdpbf16ps adds to each float32 of acc the products of the two bfloat16 of x
// and y in its place. Go's assembler does not know the instruction.
func vdpbf16ps(acc, x, y reg.VecPhysical) {
	code := evexDPBF16(number(acc), number(x), number(y))
	Comment(fmt.Sprintf("VDPBF16PS %s, %s, %s", y.Asm(), x.Asm(), acc.Asm()))
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

// evexDPBF16 is VDPBF16PS zmm_dst, zmm_src, zmm_rm: EVEX.512.F3.0F38.W0 52 /r,
// Intel SDM volume 2, sections 2.7 and VDPBF16PS. The prefix holds the upper
// bits of the register numbers, and src, inverted.
func evexDPBF16(dst, src, rm byte) [6]byte {
	not := func(number byte, bit int) byte { return ^number >> bit & 1 }
	const (
		map0F38 = 2
		ppF3    = 2
		w0      = 0
		fixed1  = 1 << 2
		l512    = 2 << 5
	)
	return [6]byte{
		0x62,
		not(dst, 3)<<7 | not(rm, 4)<<6 | not(rm, 3)<<5 | not(dst, 4)<<4 | map0F38,
		w0<<7 | (^src&15)<<3 | fixed1 | ppF3,
		l512 | not(src, 4)<<3,
		0x52,
		0xc0 | dst&7<<3 | rm&7,
	}
}

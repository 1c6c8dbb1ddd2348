package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// transposer is what the three transpositions share: lanes rows of a matrix of
// 4-byte units, lds bytes apart, become columns. Whole registers are loaded, so
// that a cache line is read once: rows a multiple of 4 KiB apart share a set
// of the first-level cache, which does not hold 16 lines.
type transposer struct {
	vector
	rows        []operand.Mem
	bases       []reg.GPPhysical
	dst, blocks reg.GPPhysical
}

// transposition generates a function that calls emit with the column registers
// of each block, and the registers that are free then.
func transposition(v vector, name, doc string, emit func(t *transposer, col int, from reg.VecPhysical, free []reg.VecPhysical), columns int) {
	name += v.name
	function(name, "func(dst *float32, src *byte, lds int, blocks int)", name+" "+doc)
	t := &transposer{vector: v}
	t.dst = Load(Param("dst"), reg.RDI).(reg.GPPhysical)
	src := Load(Param("src"), reg.RSI).(reg.GPPhysical)
	lds := Load(Param("lds"), reg.RAX).(reg.GPPhysical)
	t.blocks = Load(Param("blocks"), reg.RCX).(reg.GPPhysical)

	// Row 4g+r is at bases[g] + r·lds.
	lds3 := reg.RBX
	LEAQ(operand.Mem{Base: lds, Index: lds, Scale: 2}, lds3)
	t.bases = []reg.GPPhysical{src, reg.R8, reg.R9, reg.R10}[:v.lanes/4]
	for g := 1; g < len(t.bases); g++ {
		LEAQ(operand.Mem{Base: t.bases[g-1], Index: lds, Scale: 4}, t.bases[g])
	}
	for _, base := range t.bases {
		t.rows = append(t.rows, mem(base, 0), indexed(base, lds),
			operand.Mem{Base: base, Index: lds, Scale: 2}, indexed(base, lds3))
	}

	Label("loop")
	cols, free := t.load()
	for c, from := range cols {
		emit(t, c, from, free)
	}
	for _, base := range t.bases {
		ADDQ(operand.I32(v.bytes()), base)
	}
	// A panel is two vectors wide.
	ADDQ(operand.I32(columns*2*v.bytes()), t.dst)
	DECQ(t.blocks)
	JNZ(operand.LabelRef("loop"))
	ret()
}

// load reads lanes × lanes units and returns their columns.
func (t *transposer) load() (cols, free []reg.VecPhysical) {
	n := t.lanes
	x, y := t.all[:n], t.all[n:2*n]
	for r, row := range t.rows {
		VMOVUPS(row, x[r])
	}
	// Within each 128-bit lane L: pairs of rows, then groups of four. After
	// this x[4g+q], lane L, is column 4L+q of rows 4g … 4g+3.
	for r := 0; r < n; r += 2 {
		VUNPCKLPS(x[r+1], x[r], y[r])
		VUNPCKHPS(x[r+1], x[r], y[r+1])
	}
	for g := 0; g < n; g += 4 {
		VUNPCKLPD(y[g+2], y[g], x[g])
		VUNPCKHPD(y[g+2], y[g], x[g+1])
		VUNPCKLPD(y[g+3], y[g+1], x[g+2])
		VUNPCKHPD(y[g+3], y[g+1], x[g+3])
	}
	if !t.wide() {
		for q := range 4 {
			VPERM2F128(operand.Imm(0x20), x[4+q], x[q], y[q])
			VPERM2F128(operand.Imm(0x31), x[4+q], x[q], y[4+q])
		}
		return y, x
	}
	// Lanes across: first two groups at a time, halves of the lanes.
	for q := range 4 {
		VSHUFF32X4(operand.Imm(0x44), x[4+q], x[q], y[q])
		VSHUFF32X4(operand.Imm(0x44), x[12+q], x[8+q], y[4+q])
		VSHUFF32X4(operand.Imm(0xee), x[4+q], x[q], y[8+q])
		VSHUFF32X4(operand.Imm(0xee), x[12+q], x[8+q], y[12+q])
	}
	for q := range 4 {
		VSHUFF32X4(operand.Imm(0x88), y[4+q], y[q], x[q])
		VSHUFF32X4(operand.Imm(0xdd), y[4+q], y[q], x[4+q])
		VSHUFF32X4(operand.Imm(0x88), y[12+q], y[8+q], x[8+q])
		VSHUFF32X4(operand.Imm(0xdd), y[12+q], y[8+q], x[12+q])
	}
	return x, y
}

// store writes a column of the panel.
func (t *transposer) store(from reg.VecPhysical, col int) {
	VMOVUPS(from, mem(t.dst, col*2*t.bytes()))
}

func transposeF32(v vector) {
	transposition(v, "transposeF32", "is tile.transposeF32, of any 4-byte units.",
		func(t *transposer, c int, from reg.VecPhysical, _ []reg.VecPhysical) {
			t.store(from, c)
		}, v.lanes)
}

// transposeBF16 transposes pairs of bfloat16 and widens both halves.
func transposeBF16(v vector) {
	transposition(v, "transposeBF16", "is tile.transposeBF16: a block is two lanes deep.",
		func(t *transposer, c int, from reg.VecPhysical, free []reg.VecPhysical) {
			low := free[c%len(free)]
			VPSLLD(operand.Imm(16), from, low)
			t.store(low, 2*c)
			VPSRLD(operand.Imm(16), from, from)
			VPSLLD(operand.Imm(16), from, from)
			t.store(from, 2*c+1)
		}, 2*v.lanes)
}

// transposeF16 transposes pairs of float16 and widens both halves.
func transposeF16(v vector) {
	transposition(v, "transposeF16", "is tile.transposeF16: a block is two lanes deep.",
		func(t *transposer, c int, from reg.VecPhysical, free []reg.VecPhysical) {
			low := free[c%len(free)]
			if v.wide() {
				VPMOVDW(from, low.AsY())
				VCVTPH2PS(low.AsY(), low)
				t.store(low, 2*c)
				VPSRLD(operand.Imm(16), from, from)
				VPMOVDW(from, from.AsY())
				VCVTPH2PS(from.AsY(), from)
				t.store(from, 2*c+1)
				return
			}
			// The halves of each 128-bit lane side by side, then the lanes.
			VPSLLD(operand.Imm(16), from, low)
			VPSRLD(operand.Imm(16), low, low)
			VPSRLD(operand.Imm(16), from, from)
			VPACKUSDW(from, low, low)
			VPERMQ(operand.Imm(0xd8), low, low)
			VCVTPH2PS(low.AsX(), from)
			t.store(from, 2*c)
			VEXTRACTI128(operand.Imm(1), low, low.AsX())
			VCVTPH2PS(low.AsX(), low)
			t.store(low, 2*c+1)
		}, 2*v.lanes)
}

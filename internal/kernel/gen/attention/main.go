// Command attention generates the loops around attention's matrix products, and
// those of other mixers and gates.
// From the folder gen:
//
//	go run ./attention -out ../attention_amd64.s -stubs ../attention_stubs_amd64.go -pkg kernel
//
// Registers are assigned by hand, since raw instruction bytes need their numbers.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!purego")
	expBF16()
	pairBF16()
	capRow()
	sigmoidMul()
	geluMul()
	for _, v := range []vector{avx512, avx2} {
		scaleTo(v)
		addScaled(v)
		addProduct(v)
	}
	Generate()
}

// vector is a vector width.
type vector struct {
	name  string // suffix of the generated functions
	lanes int    // float32 in a register
	all   []reg.VecPhysical
}

var avx512 = vector{"AVX512", 16, []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
	reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
}}

var avx2 = vector{"AVX2", 8, []reg.VecPhysical{reg.Y0, reg.Y1}}

func (v vector) bytes() int { return 4 * v.lanes }

// function starts a generated function.
func function(name, signature string, doc ...string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc...)
}

func mem(base reg.Register) operand.Mem { return operand.Mem{Base: base} }

func pointer(name string, to reg.Register) reg.GPPhysical {
	return Load(Param(name), to).(reg.GPPhysical)
}

// spread loads a float32 argument into every lane.
func spread(name string, to reg.VecPhysical) {
	address, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(address.Addr, to)
}

// constants loads float32 values into every lane of registers.
func constants(name string, values []float32, to []reg.VecPhysical) {
	table := GLOBL(name, RODATA|NOPTR)
	for i, c := range values {
		DATA(4*i, operand.F32(c))
	}
	for i, r := range to[:len(values)] {
		VBROADCASTSS(table.Offset(4*i), r)
	}
}

// loop emits body for each of n vectors, then moves the pointers on by their
// bytes a vector.
func loop(n reg.Register, body func(), pointers map[reg.Register]int) {
	Label("loop")
	body()
	for _, p := range []reg.Register{reg.RDI, reg.RSI, reg.RDX} {
		if step, ok := pointers[p]; ok {
			ADDQ(operand.I32(step), p)
		}
	}
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
}

func ret() {
	VZEROUPPER()
	RET()
}

// nearest is VRNDSCALEPS' immediate for the nearest integer, without exceptions.
const nearest = 8

// scaleTo generates scaleTo for whole vectors.
func scaleTo(v vector) {
	name := "scaleTo" + v.name
	function(name, "func(dst *float32, src *float32, vectors int, f float32)",
		name+" is scaleTo for whole vectors, at least one.")
	dst, src := pointer("dst", reg.RDI), pointer("src", reg.RSI)
	n := pointer("vectors", reg.RCX)
	x, f := v.all[0], v.all[1]
	spread("f", f)
	loop(n, func() {
		VMULPS(mem(src), f, x)
		VMOVUPS(x, mem(dst))
	}, map[reg.Register]int{dst: v.bytes(), src: v.bytes()})
	ret()
}

// addScaled generates AddScaled for whole vectors.
func addScaled(v vector) {
	name := "addScaled" + v.name
	function(name, "func(dst *float32, x *float32, vectors int, f float32)",
		name+" is AddScaled for whole vectors, at least one.")
	dst, src := pointer("dst", reg.RDI), pointer("x", reg.RSI)
	n := pointer("vectors", reg.RCX)
	x, f := v.all[0], v.all[1]
	spread("f", f)
	loop(n, func() {
		VMOVUPS(mem(dst), x)
		VFMADD231PS(mem(src), f, x)
		VMOVUPS(x, mem(dst))
	}, map[reg.Register]int{dst: v.bytes(), src: v.bytes()})
	ret()
}

// pairBF16 generates pairBF16 for whole vectors.
func pairBF16() {
	function("pairBF16AVX512", "func(dst *float32, even *float32, odd *float32, vectors int)",
		"pairBF16AVX512 is pairBF16 for whole vectors, at least one.")
	dst, even, odd := pointer("dst", reg.RDI), pointer("even", reg.RSI), pointer("odd", reg.RDX)
	n := pointer("vectors", reg.RCX)
	lo, hi := reg.Z0, reg.Z1
	loop(n, func() {
		VMOVUPS(mem(even), lo)
		VMOVUPS(mem(odd), hi)
		narrow(lo, lo)
		narrow(hi, hi)
		VPMOVZXWD(lo.AsY(), lo)
		VPMOVZXWD(hi.AsY(), hi)
		VPSLLD(operand.Imm(16), hi, hi)
		VPORD(hi, lo, lo)
		VMOVUPS(lo, mem(dst))
	}, map[reg.Register]int{dst: 64, even: 64, odd: 64})
	ret()
}

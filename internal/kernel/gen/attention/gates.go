package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// addProduct generates AddProduct for whole vectors.
func addProduct(v vector) {
	name := "addProduct" + v.name
	function(name, "func(dst *float32, x *float32, y *float32, vectors int)",
		name+" is AddProduct for whole vectors, at least one.")
	dst, x, y := pointer("dst", reg.RDI), pointer("x", reg.RSI), pointer("y", reg.RDX)
	n := pointer("vectors", reg.RCX)
	sum, a := v.all[0], v.all[1]
	loop(n, func() {
		VMOVUPS(mem(dst), sum)
		VMOVUPS(mem(x), a)
		VFMADD231PS(mem(y), a, sum)
		VMOVUPS(sum, mem(dst))
	}, map[reg.Register]int{dst: v.bytes(), x: v.bytes(), y: v.bytes()})
	ret()
}

const log2e = 1.442695

// sigmoidMul generates SigmoidMul for whole vectors.
func sigmoidMul() {
	const name = "sigmoidMulAVX512"
	function(name, "func(dst *float32, gate *float32, vectors int)",
		name+" is SigmoidMul for whole vectors, at least one.")
	dst, gate := pointer("dst", reg.RDI), pointer("gate", reg.RSI)
	n := pointer("vectors", reg.RCX)
	z := avx512.all
	x, f, p, slope, least, most, poly := z[0], z[1], z[2], z[3], z[4], z[5], z[6:13]
	constants(name+"Constants", append([]float32{-log2e, -126, 126}, fine...), append([]reg.VecPhysical{slope, least, most}, poly...))
	loop(n, func() {
		VMULPS(mem(gate), slope, x)
		logistic(x, f, p, least, most, poly)
		VMOVUPS(mem(dst), f)
		VDIVPS(x, f, f)
		VMOVUPS(f, mem(dst))
	}, map[reg.Register]int{dst: 64, gate: 64})
	ret()
}

// logistic replaces x by 1 + 2^x, x being between least and most or set to that.
func logistic(x, f, p, least, most reg.VecPhysical, poly []reg.VecPhysical) {
	VMAXPS(x, least, x) // NaN stays
	VMINPS(x, most, x)
	exp2(x, f, p, poly)
	VADDPS(poly[0], x, x) // which is 1
}

// geluMul generates GeluMul for whole vectors.
func geluMul() {
	const name = "geluMulAVX512"
	function(name, "func(dst *float32, gate *float32, up *float32, vectors int)",
		name+" is GeluMul for whole vectors, at least one.")
	dst, gate, up := pointer("dst", reg.RDI), pointer("gate", reg.RSI), pointer("up", reg.RDX)
	n := pointer("vectors", reg.RCX)
	z := avx512.all
	x, f, p, g, slope, cubic, least, most, poly := z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7], z[8:15]
	const twice = 2 * 0.7978845608 // √(2/π)
	constants(name+"Constants", append([]float32{-log2e * twice, -log2e * twice * 0.044715, -126, 126}, fine...),
		append([]reg.VecPhysical{slope, cubic, least, most}, poly...))
	loop(n, func() {
		VMOVUPS(mem(gate), g)
		VMULPS(g, g, x)
		VFMADD213PS(slope, cubic, x)
		VMULPS(g, x, x)
		logistic(x, f, p, least, most, poly)
		VMULPS(mem(up), g, g)
		VDIVPS(x, g, g)
		VMOVUPS(g, mem(dst))
	}, map[reg.Register]int{dst: 64, gate: 64, up: 64})
	ret()
}

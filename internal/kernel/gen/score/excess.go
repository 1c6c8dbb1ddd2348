package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The tile of excess: eight sums, so that with six loads there are twenty-four
// operations, and all fit in the sixteen registers of AVX2.
const (
	excessT = 2
	excessX = 4
)

// excess adds max(x_b[r] − t_a[r], 0) to lane r%16 of sum (a, b), for the lanes
// of one register: AVX2 needs two calls.
func excess(v isa) {
	v.function("excess", "lanes, t, x *float32, stride int", "")
	lanes, stride := pointer("lanes"), Load(Param("stride"), GP64())
	SHLQ(operand.U8(2), stride)
	rows := func(name string, n int) []reg.Register {
		all := []reg.Register{pointer(name)}
		for len(all) < n {
			next := GP64()
			MOVQ(all[len(all)-1], next)
			ADDQ(stride, next)
			all = append(all, next)
		}
		return all
	}
	ts, xs := rows("t", excessT), rows("x", excessX)
	var sums [excessT][excessX]reg.VecVirtual
	sum := func(a, b int) operand.Mem { return operand.Mem{Base: lanes, Disp: 4 * 16 * (a*excessX + b)} }
	for a := range sums {
		for b := range sums[a] {
			sums[a][b] = v.load(sum(a, b))
		}
	}
	zero, d := v.zero(), v.reg()
	loop(16, func(i reg.Register) {
		var x [excessX]reg.VecVirtual
		for b := range x {
			x[b] = v.load(at(xs[b], i, 4, 0))
		}
		t := v.reg()
		for a := range sums {
			VMOVUPS(at(ts[a], i, 4, 0), t)
			for b := range x {
				VSUBPS(t, x[b], d)
				VMAXPS(zero, d, d)
				VADDPS(d, sums[a][b], sums[a][b])
			}
		}
	})
	for a := range sums {
		for b := range sums[a] {
			VMOVUPS(sums[a][b], sum(a, b))
		}
	}
	ret()
}

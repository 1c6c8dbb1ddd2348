package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The loops of peak.go, which measure what the processor can do at best.

// mulAddLoop generates a loop of independent multiply-adds in registers: as
// many chains as the accumulators of the micro-kernels, so more than hide the
// latency.
func mulAddLoop(v vector, bfloat bool) {
	kind := ""
	if bfloat {
		kind = "BF16"
	}
	name := "mulAdds" + kind + v.name
	function(name, "func(steps int, one float32) float32",
		name+" is mulAdds: steps ≥ 1 of the chains' length each.")
	steps := Load(Param("steps"), reg.RCX).(reg.GPPhysical)
	address, err := Param("one").Resolve()
	if err != nil {
		panic(err)
	}
	chains := v.all[:12]
	if v.wide() {
		chains = v.all[:24]
	}
	x, y := v.all[len(chains)], v.all[len(chains)+1]
	VBROADCASTSS(address.Addr, x)
	VMOVAPS(x, y)
	for _, r := range chains {
		v.zero(r)
	}
	Label("loop")
	for _, r := range chains {
		if bfloat {
			vdpbf16ps(r, x, y)
		} else {
			VFMADD231PS(x, y, r)
		}
	}
	DECQ(steps)
	JNZ(operand.LabelRef("loop"))
	for _, r := range chains[1:] {
		VADDPS(r, chains[0], chains[0])
	}
	v.reduce(chains[0], chains[1], func(b, a, dst operand.Op) { VADDPS(b, a, dst) })
	Store(chains[0].AsX(), ReturnIndex(0))
	ret()
}

// readLoop generates the exclusive or of memory, four vectors a step.
func readLoop(v vector) {
	name := "readAll" + v.name
	function(name, "func(x *float32, blocks int) uint32",
		name+" is ReadAll for blocks of four vectors; blocks ≥ 1.")
	x := Load(Param("x"), reg.RSI).(reg.GPPhysical)
	blocks := Load(Param("blocks"), reg.RCX).(reg.GPPhysical)
	acc := v.all[:4]
	xor := func(b, a, dst operand.Op) {
		if v.wide() {
			VPXORD(b, a, dst)
		} else {
			VPXOR(b, a, dst)
		}
	}
	for _, r := range acc {
		v.zero(r)
	}
	Label("loop")
	for i, r := range acc {
		xor(mem(x, i*v.bytes()), r, r)
	}
	ADDQ(operand.I32(4*v.bytes()), x)
	DECQ(blocks)
	JNZ(operand.LabelRef("loop"))
	xor(acc[1], acc[0], acc[0])
	xor(acc[3], acc[2], acc[2])
	xor(acc[2], acc[0], acc[0])
	v.reduce(acc[0], acc[1], func(b, a, dst operand.Op) { VPXOR(b, a, dst) })
	VMOVD(acc[0].AsX(), reg.EAX)
	Store(reg.EAX, ReturnIndex(0))
	ret()
}

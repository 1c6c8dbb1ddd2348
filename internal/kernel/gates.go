package kernel

import "math"

// AddScaled is
//
//	for i, v := range x { dst[i] += f * v }
//
// fused where the processor does so. len(dst) == len(x); dst may be x.
func AddScaled(dst, x []float32, f float32) {
	checkLen("AddScaled", "dst", len(dst), len(x))
	n := addScaledBlocks(dst, x, f)
	dst = dst[n:]
	for i, v := range x[n:] {
		dst[i] += f * v
	}
}

// AddProduct is
//
//	for i := range dst { dst[i] += x[i] * y[i] }
//
// fused where the processor does so. All have one length.
func AddProduct(dst, x, y []float32) {
	checkLen("AddProduct", "x", len(x), len(dst))
	checkLen("AddProduct", "y", len(y), len(dst))
	n := addProductBlocks(dst, x, y)
	dst, x, y = dst[n:], x[n:], y[n:]
	for i, v := range x {
		dst[i] += v * y[i]
	}
}

// SigmoidMul is
//
//	for i, g := range gate { dst[i] *= 1 / (1 + exp(−g)) }
//
// Relative error at most (4 + 2·|g|)·2⁻²⁴; a gate below −87 counts as that.
// NaN gives NaN. len(dst) == len(gate).
func SigmoidMul(dst, gate []float32) {
	checkLen("SigmoidMul", "gate", len(gate), len(dst))
	n := sigmoidMulBlocks(dst, gate)
	dst, gate = dst[n:], gate[n:]
	for i, g := range gate {
		dst[i] = float32(float64(dst[i]) / (1 + math.Exp(-float64(max(g, -87)))))
	}
}

// GeluMul is the gate of Gemma's MLP, gelu by its tanh approximation: since
// (1 + tanh z)/2 = 1/(1 + exp(−2z)),
//
//	dst[i] = gelu(gate[i]) · up[i]
//	gelu(g) = g/2 · (1 + tanh z) = g / (1 + exp(−2z)),  z = √(2/π)·(g + 0.044715 g³)
//
// Relative error at most (6 + 8·|z|)·2⁻²⁴; a 2z below −87 counts as that, so
// that gelu(−Inf) is not finite. NaN gives NaN. All have one length; dst may be gate or up.
//
// Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
func GeluMul(dst, gate, up []float32) {
	checkLen("GeluMul", "gate", len(gate), len(dst))
	checkLen("GeluMul", "up", len(up), len(dst))
	n := geluMulBlocks(dst, gate, up)
	dst, gate, up = dst[n:], gate[n:], up[n:]
	const twice, cubic = 2 * 0.7978845608028654, 0.044715 // 2√(2/π)
	for i, v := range gate {
		g := float64(v)
		z := max(twice*g*(1+cubic*g*g), -87)
		dst[i] = float32(g * float64(up[i]) / (1 + math.Exp(-z)))
	}
}

// SoftCap is
//
//	for i, v := range x { x[i] = limit · tanh(v/limit) }
//
// with an absolute error of at most limit·2⁻²², that of the quotient's rounding
// aside. limit is positive. NaN gives NaN.
func SoftCap(x []float32, limit float32) { capRow(x, 1, limit) }

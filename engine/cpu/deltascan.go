package cpu

import (
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// The delta rule over a chunk of L tokens is a few matrix products. With
// G_i = Σ_{j≤i} g_j and the state S at its start, rows i of K, Q and V being
// the tokens', let u_i be what token i writes beside its key. Then
//
//	u_i = β_i (v_i − e^{G_i} Sᵀk_i − Σ_{j<i} e^{G_i−G_j} (k_i·k_j) u_j)
//	o_i = e^{G_i} Sᵀq_i + Σ_{j≤i} e^{G_i−G_j} (q_i·k_j) u_j
//	S′  = e^{G_L} S + Σ_j e^{G_L−G_j} k_j u_jᵀ
//
// Only the sum in the first line is sequential: a triangular system of size L.
// Every exponent is ≤ 0. Yang et al. 2024, arXiv:2406.06484 and 2412.06464.

// deltaChunk is L: the products with S, 2·L·keyDim·valueDim each, should
// outweigh the triangular system, L²·valueDim, at key widths of 128.
const deltaChunk = 64

// deltaWork is one head's memory while it scans.
type deltaWork struct {
	q, k   []float32 // L × keyDim
	kT     []float32 // keyDim × L, decayed to the chunk's end
	u      []float32 // L × valueDim
	uT     []float32 // valueDim × L
	kk, qk []float32 // L × L
	decay  []float32 // L × L
	o      []float32 // L × valueDim
	step   []float32 // valueDim × keyDim
}

// workSize returns the elements that a deltaWork takes.
func (d *deltaNet) workSize() int {
	const l = deltaChunk
	return 3*l*d.KeyDim + 3*l*d.ValueDim + 3*l*l + d.ValueDim*d.KeyDim
}

func (d *deltaNet) newWork(mem []float32) *deltaWork {
	const l = deltaChunk
	take := func(n int) (part []float32) {
		part, mem = mem[:n:n], mem[n:]
		return part
	}
	return &deltaWork{
		q: take(l * d.KeyDim), k: take(l * d.KeyDim), kT: take(l * d.KeyDim),
		u: take(l * d.ValueDim), uT: take(l * d.ValueDim), o: take(l * d.ValueDim),
		kk: take(l * l), qk: take(l * l), decay: take(l * l), step: take(d.ValueDim * d.KeyDim),
	}
}

// scan runs one value head over all tokens, chunk by chunk, writing its columns
// of o. states holds Sᵀ of every head and is advanced.
func (d *deltaNet) scan(head int, o, qkv, beta, decay tensor.Matrix, states, mem []float32) {
	w := d.newWork(mem)
	size := d.ValueDim * d.KeyDim
	state := states[head*size : (head+1)*size]
	keyHead := head / (d.ValueHeads / d.KeyHeads)
	qAt := keyHead * d.KeyDim
	kAt := d.KeyHeads*d.KeyDim + qAt
	vAt := 2*d.KeyHeads*d.KeyDim + head*d.ValueDim
	var rates [deltaChunk]float64
	var sums [deltaChunk]float64
	for lo := 0; lo < o.Rows; lo += deltaChunk {
		n := min(deltaChunk, o.Rows-lo)
		sum := 0.0
		for i := range n {
			row := qkv.Row(lo + i)
			copy(w.q[i*d.KeyDim:(i+1)*d.KeyDim], row[qAt:])
			copy(w.k[i*d.KeyDim:(i+1)*d.KeyDim], row[kAt:])
			copy(w.u[i*d.ValueDim:(i+1)*d.ValueDim], row[vAt:])
			rates[i] = float64(beta.Row(lo + i)[head])
			sum += float64(decay.Row(lo + i)[head])
			sums[i] = sum
		}
		d.chunk(w, state, rates[:n], sums[:n])
		for i := range n {
			copy(o.Row(lo + i)[head*d.ValueDim:], w.o[i*d.ValueDim:(i+1)*d.ValueDim])
		}
	}
}

// chunk computes o of one chunk and advances the state. w holds q, k and, in
// u, v; beta and g are β and G.
func (d *deltaNet) chunk(w *deltaWork, state []float32, beta, g []float64) {
	n, kd, vd := len(g), d.KeyDim, d.ValueDim
	keys, states := kernel.Source{F32: w.k[:n*kd]}, kernel.Source{F32: state}
	kernel.MatMulT(w.kk, n, w.k, kd, keys, kd, n, n, kd)
	kernel.MatMulT(w.qk, n, w.q, kd, keys, kd, n, n, kd)
	kernel.MatMulT(w.o, vd, w.k, kd, states, kd, n, vd, kd) // Sᵀk_i, for a moment
	decays(w.decay, g)
	d.solve(w, beta, g)
	for i := range n {
		qk, decay := w.qk[i*n:(i+1)*n], w.decay[i*n:(i+1)*n]
		for j := range qk {
			qk[j] *= decay[j]
		}
		scale(w.q[i*kd:(i+1)*kd], float32(math.Exp(g[i])))
	}
	kernel.MatMulT(w.o, vd, w.q, kd, states, kd, n, vd, kd)
	transpose(w.uT, w.u, n, vd)
	inner := w.u // read out as uT
	kernel.MatMulT(inner, vd, w.qk, n, kernel.Source{F32: w.uT[:vd*n]}, n, n, vd, n)
	kernel.Add(w.o[:n*vd], inner[:n*vd])
	for j := range n {
		scale(w.k[j*kd:(j+1)*kd], float32(math.Exp(g[n-1]-g[j])))
	}
	transpose(w.kT, w.k, n, kd)
	kernel.MatMulT(w.step, kd, w.uT, n, kernel.Source{F32: w.kT[:kd*n]}, n, vd, kd, n)
	scale(state, float32(math.Exp(g[n-1])))
	kernel.Add(state, w.step)
}

// decays writes e^{G_i−G_j} into row i of the L × L dst, 0 for tokens j after i.
func decays(dst []float32, g []float64) {
	n := len(g)
	for i := range n {
		row := dst[i*n : (i+1)*n]
		clear(row[i:])
		row[i] = 1
		for j := range i {
			row[j] = float32(math.Exp(g[i] - g[j]))
		}
	}
}

// solve turns the v_i in w.u into u_i; w.o holds Sᵀk_i, w.kk the k_i·k_j and
// w.decay the e^{G_i−G_j}.
func (d *deltaNet) solve(w *deltaWork, beta, g []float64) {
	n, vd := len(g), d.ValueDim
	for i := range n {
		u, read := w.u[i*vd:(i+1)*vd], w.o[i*vd:(i+1)*vd]
		b := float32(beta[i])
		kernel.AddScaled(u, read, -float32(math.Exp(g[i])))
		scale(u, b)
		for j := range i {
			kernel.AddScaled(u, w.u[j*vd:(j+1)*vd], -b*w.decay[i*n+j]*w.kk[i*n+j])
		}
	}
}

// transpose writes the columns of rows × cols x as rows of dst.
func transpose(dst, x []float32, rows, cols int) {
	for i := range rows {
		for j, v := range x[i*cols : (i+1)*cols] {
			dst[j*rows+i] = v
		}
	}
}

func scale(x []float32, by float32) {
	for i := range x {
		x[i] *= by
	}
}

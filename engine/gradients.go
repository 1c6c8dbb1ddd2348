package engine

// Gradients is what a Stream may also do: the backward passes of its operations. For a
// loss L, dX stands for ∂L/∂X and has the sizes of X; weights of norms and biases are
// held fixed. What x, q, k and v are here is what entered the operation. Where a dX
// has no rows it is not asked for. No dX may be the memory of another argument.
type Gradients interface {
	// LinearBack is of Linear, y = x·wᵀ: dx = dy·w, and dyᵀ·x is added to dw, w.N × in.
	LinearBack(dx, dw, dy, x Mat, w Proj)

	// NormBack is of Norm.
	NormBack(dx, dy, x Mat, n *Norm)

	// Activate writes act(gate) · up, which Gated computes of two products, and
	// ActivateBack is its backward pass.
	Activate(dst, gate, up Mat, act Activation)
	ActivateBack(dgate, dup, dy, gate, up Mat, act Activation)

	// AttendBack is of Attend for one whole sequence. Its memory grows with the
	// number of tokens, not with its square.
	AttendBack(dq, dk, dv, dy, q, k, v Mat, r *Rotary, a *Attention)

	// Scale multiplies row t of x with by[t].
	Scale(x Mat, by []float64)
}

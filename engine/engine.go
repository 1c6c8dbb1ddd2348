// Package engine is the seam between a model and what computes it: about
// twenty coarse operations, each a line of an architecture's formula, and the
// memory that they work in.
//
// An engine owns activations (Mat), weights as its products read them (Op) and
// what attention keeps of earlier tokens (Cache); nobody else looks inside.
// Package engine/reference is the engine to read first, and the oracle of the
// others; engine/cpu is the fast one. Package engine/enginetest holds any
// engine against the reference.
//
// A row of activations is a token. Weights are out × in, as everywhere.
package engine

import (
	"fmt"

	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Engine computes. Several goroutines may use one, each with a Stream of its own.
type Engine interface {
	// ID names all that the last bits of a result depend on beside its inputs:
	// "cpu/avx512+bf16". It is part of the provenance of every number.
	ID() string

	Compute() Compute // type of the inputs of products

	// Rounds reports whether products with weights of that type round the
	// activations that enter them to bfloat16.
	Rounds(weights tensor.DType) bool

	// AttentionBytes returns what an AttentionCache of a takes with so many tokens,
	// where the weight that the heads' output enters is of type out.
	AttentionBytes(a *Attention, out tensor.DType, tokens int) int64

	// NewMat returns zeros that live as long as something refers to them.
	NewMat(rows, cols int) Mat
	Upload(dst Mat, src tensor.Matrix)
	Download(dst tensor.Matrix, src Mat)

	// Load returns w as products read it. The Op may keep w's memory (Op.Weight);
	// then a change of w changes the Op.
	Load(w *tensor.Weight) (Op, error)

	// NewVec returns a vector of parameters: a bias or the weights of a norm.
	NewVec(v []float32) Vec

	// NewStats returns an empty statistic of an input of that width, and
	// StatsScratch the bytes of memory (see Own) that adding to it takes beside it.
	NewStats(in int, needs stats.Needs) Stats
	StatsScratch(in int, needs stats.Needs) int64

	// NewStream returns a Stream without memory.
	NewStream() Stream
}

// Stream runs operations in order and owns their scratch memory. One goroutine
// uses it at a time. Results depend neither on the number of threads nor on
// what the Stream did before.
//
// An operation panics where shapes do not fit: that is the caller's bug.
type Stream interface {
	// Alloc returns scratch of undefined content, which lives until the Release
	// of an earlier Mark: defer s.Release(s.Mark()).
	Alloc(rows, cols int) Mat
	Mark() int
	Release(mark int)
	Bytes() int64 // of scratch

	Copy(dst, x Mat)

	// Norm writes the RMS norm of each row of x into dst, which may be x.
	Norm(dst, x Mat, n *Norm)

	// Operand returns x, normed if n is not nil, as products with all of ws read
	// it, so that it is normed and rounded once for all of them. It is scratch, or
	// x itself, and of use to products only.
	Operand(x Mat, n *Norm, ws ...Proj) Mat

	// OperandFor returns scratch of that many rows for products with w, which an
	// operation that says so may write.
	OperandFor(rows int, w Proj) Mat

	// Linear writes x·wᵀ + bias.
	Linear(dst, x Mat, w Proj)

	// Gated writes act(gate(x)) · up(x), element by element; dst may be what
	// OperandFor returned.
	Gated(dst, x Mat, gate, up Proj, act Activation)

	// Add adds y, normed if post is not nil, to x, and may overwrite y.
	Add(x, y Mat, post *Norm)

	// Sub writes x − y into dst, which may be either. Squares writes the sum of
	// squares of each row of x.
	Sub(dst, x, y Mat)
	Squares(dst []float64, x Mat)

	// Attend replaces the queries q by what their heads yield (see Attention). The
	// rows of q, k and v are the sequences' new tokens, one sequence after the
	// other; rows after the last become 0. k and v are overwritten or not, and
	// taken into the sequences' Caches.
	Attend(q, k, v Mat, seqs []Sequence, a *Attention)

	// AttentionCache returns an empty Cache for a, whose heads' output enters
	// out: old's memory if that is of the same kind.
	AttentionCache(a *Attention, out Proj, old Cache) Cache

	// FirstHalves writes into dst the first dim of every 2·dim elements of x;
	// GateHalves multiplies x with the sigmoid of the others of gates.
	FirstHalves(dst, x Mat, dim int)
	GateHalves(x, gates Mat, dim int)

	// Route returns the tokens of each expert, in order. With p = softmax of
	// router(x) a token goes to the used largest (equal ones: the lower index), with
	// weight p, or p over their sum if renormalise. A token whose p is not finite
	// goes nowhere.
	Route(x Mat, router Proj, used int, renormalise bool) [][]Routed
	Gather(dst, x Mat, tokens []Routed)   // dst row i is x's row tokens[i].Token
	ScatterAdd(x, y Mat, tokens []Routed) // adds Weight · y's row i to x's row Token

	// LogSums adds the logits of part of the vocabulary, the features of head, of
	// which the first is token first's, to sums, one of each row of x.
	LogSums(sums []LogSum, x Mat, head Proj, first int, softCap float32, targets []int32)

	// Logits writes them into columns first and on of dst.
	Logits(dst, x Mat, head Proj, first int, softCap float32)
}

// Delta is what a Stream may also do: Gated DeltaNet. A model that has it is
// refused by an engine whose Streams do not.
type Delta interface {
	// Delta replaces z by what the heads yield, gated by z (see DeltaNet). The
	// rows are as in Attend; qkv, beta and decay are overwritten.
	Delta(z, qkv, beta, decay Mat, seqs []Sequence, d *DeltaNet)

	// DeltaCache returns a Cache of no tokens, old's memory if that is of the
	// same kind.
	DeltaCache(d *DeltaNet, old Cache) Cache
}

// Packer is what an Engine may also do: keep a weight in packed form, which takes less
// memory. Products with it are those with the plain weight, to the same bits. For an
// engine that does not, packed weights are read as plain ones.
type Packer interface {
	LoadPacked(w *tensor.Packed) (Op, error)
}

// Mat is rows × cols activations in the memory of an engine. Operations of the
// engine that made it read it; Download is the way out.
type Mat struct {
	Rows, Cols int
	Mem        Memory
	First      int // row of Mem that is row 0
}

// Memory is what activations lie in: a pointer, so that two Mats can be told to be
// of the same memory.
type Memory interface {
	Bytes() int64
}

// Slice returns rows lo to hi-1, in the same memory.
func (m Mat) Slice(lo, hi int) Mat {
	if lo < 0 || lo > hi || hi > m.Rows {
		panic(fmt.Sprintf("engine: Mat.Slice: rows %d to %d of %d", lo, hi, m.Rows))
	}
	return Mat{Rows: hi - lo, Cols: m.Cols, Mem: m.Mem, First: m.First + lo}
}

// Op is a weight as an engine's products read it.
type Op interface {
	Dims() (out, in int)
	DType() tensor.DType // of the weight it was loaded from
	Bytes() int64        // of memory

	// Weight returns the weight it was loaded from, if its memory is that
	// weight's; nil if it has a form of its own.
	Weight() *tensor.Weight

	// Read writes the weight into w, which is of its type and sizes.
	Read(w *tensor.Weight)
}

// Vec is a vector of parameters.
type Vec interface {
	Len() int
}

// Proj is a projection: features Lo to Lo+N-1 of a weight, with their bias. A
// fused matrix holds several.
type Proj struct {
	W     Op
	Bias  Vec // [out] of all features of W; nil for none
	Lo, N int
}

// Norm is the RMS norm of a row x:
//
//	x_j · W_j / sqrt(mean(x²) + Eps)
type Norm struct {
	W   Vec
	Eps float32
}

// Activation is that of a gated MLP.
type Activation uint8

// The activations.
const (
	SiLU Activation = iota // x·sigmoid(x)
	GELU                   // the approximation by tanh
)

// Attention is causal attention with rotary positions, of Heads query heads over
// KVHeads key and value heads. At position p query head h yields
//
//	Σ_j softmax_j(Scale·rope(norm(q))·rope(norm(k_j)))·v_j,  max(0, p−Window+1) ≤ j ≤ p
//
// where q and k are of HeadDim, k and v of head h/(Heads/KVHeads), and norm is
// QNorm and KNorm or, without them, nothing. With a SoftCap c scores s become
// c·tanh(s/c).
type Attention struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32
	Window                  int     // keys that a query sees, itself included; 0 for all
	SoftCap                 float32 // 0 for none
	QNorm, KNorm            *Norm   // of a head; nil for none
}

// DeltaNet is linear attention by the gated delta rule. With [q|k|v] =
// silu(conv(qkv)), q and k scaled to length 1 (q also by KeyDim^−½), and per
// value head β = sigmoid(beta), g = −Rate·softplus(decay + Bias):
//
//	S_t = e^g S_{t−1} + β k (v − e^g S_{t−1}ᵀk)ᵀ,  S: KeyDim × ValueDim, S_0 = 0
//	out = norm(S_tᵀ q) · silu(z)
//
// Value head j reads q and k of head ⌊j / (ValueHeads/KeyHeads)⌋. The
// convolution is causal, over the last Taps tokens, channel by channel. Yang et
// al. 2024, arXiv:2412.06464.
type DeltaNet struct {
	KeyHeads, ValueHeads int // ValueHeads is a multiple of KeyHeads
	KeyDim, ValueDim     int // of one head
	Taps                 int // of the convolution over time

	Conv       []Vec // [Taps], each of Channels; the last multiplies the token itself
	Rate, Bias Vec   // of ValueHeads
	Norm       *Norm // over a head of ValueDim
}

// Channels is the width of q, k and v of all heads side by side.
func (d *DeltaNet) Channels() int { return 2*d.KeyHeads*d.KeyDim + d.ValueWidth() }

// ValueWidth is the width of the values of all heads.
func (d *DeltaNet) ValueWidth() int { return d.ValueHeads * d.ValueDim }

// Cache is what a layer keeps of a sequence's tokens.
type Cache interface {
	Len() int     // tokens
	Bytes() int64 // of its own memory, without what it shares
	Reset()       // forgets all tokens and keeps the memory

	// Fork returns another that holds the first n tokens, in old's memory if that is
	// of the same kind. The two may share memory that neither writes again. A
	// recurrence has its last state only: of it n is Len.
	Fork(n int, old Cache) Cache
}

// Sequence is the next tokens of a sequence and what is known of those before.
type Sequence struct {
	Cache  Cache
	Tokens int
	Rotary *Rotary // for attention
}

// Routed is a token that goes to an expert, and its weight there.
type Routed struct {
	Token  int
	Weight float32
}

// Fit says what a least-squares fit counts of a sequence's tokens.
type Fit struct {
	Weights []float64 // of the tokens, at least 0; nil: each counts 1
	Lacks   Mat       // tokens × Needs.Cross: Y of stats.Cross; without rows if there is none
}

// Stats gathers what enters a Linear, sequence by sequence. The order of the
// calls decides the rounding, not the number of threads.
type Stats interface {
	// Add takes in the tokens × in inputs of one sequence, all of them: of an
	// expert, those that were routed to it.
	Add(x Mat)

	// AddFit is Add of tokens that a Gram matrix and a Cross count as f says. Norms
	// and moments count every token once.
	AddFit(x Mat, f Fit)

	// Input returns the statistic of what has been added, with n = sequences: the
	// number of calibration sequences, also where some brought no token. It takes
	// over the Gram matrix: nothing may be added afterwards.
	Input(sequences int) *stats.Input
}

package cpu

import (
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// headRun is how many logits of a token there are at a time: 32 MiB for 2048 tokens.
const headRun = 4096

// LogSums implements engine.Stream.
func (s *stream) LogSums(sums []engine.LogSum, x engine.Mat, head engine.Proj, first int, softCap float32, targets []int32) {
	s.logits(x, head, softCap, func(t, i int, part []float32) {
		top, sum := kernel.MaxSumExp(part)
		sums[t].Add(float64(top), sum)
		if i := int(targets[t]) - first - i; i >= 0 && i < len(part) {
			sums[t].Target = float64(part[i])
		}
	})
}

// Logits implements engine.Stream.
func (s *stream) Logits(dst, x engine.Mat, head engine.Proj, first int, softCap float32) {
	to := host(dst)
	s.logits(x, head, softCap, func(t, i int, part []float32) { copy(to.Row(t)[first+i:], part) })
}

// logits calls f, for different tokens at a time, with the logits of each token,
// one run of head's features after another, the first of which is the i-th.
func (s *stream) logits(x engine.Mat, head engine.Proj, softCap float32, f func(t, i int, part []float32)) {
	defer s.Release(s.Mark())
	o := operandOf(x)
	run := min(headRun, head.N)
	if x.Rows == 1 {
		run = head.N // decoding: memory is read best in one go
	}
	all := s.alloc(x.Rows * run).data
	for i := 0; i < head.N; i += run {
		n := min(run, head.N-i)
		y := tensor.Matrix{Rows: x.Rows, Cols: n, Data: all[:x.Rows*n]}
		s.linear(y, o, engine.Proj{W: head.W, Bias: head.Bias, Lo: head.Lo + i, N: n})
		eachToken(x.Rows, func(t int) {
			if softCap > 0 {
				kernel.SoftCap(y.Row(t), softCap)
			}
			f(t, i, y.Row(t))
		})
	}
}

package task

import (
	"slices"

	"github.com/crepe-llm/crepe/model"
)

// sequences are a document's inputs as the model sees them: a beginning that
// all share, which is computed once, and what differs after it.
//
// An input is context and continuation cut on the left to the model's length
// and less their last token, which nothing follows. Choices of one token have
// equal inputs, which are one.
type sequences struct {
	prefix []int32
	rests  [][]int32
	spans  []span // by choice
}

// span is where a choice's tokens are predicted.
type span struct {
	rest    int // index in rests
	first   int // position in the input of the first token's prediction
	targets []int32
}

// tokens returns the number of hidden states.
func (s *sequences) tokens() int {
	n := len(s.prefix)
	for _, r := range s.rests {
		n += len(r)
	}
	return n
}

// longest returns the length of the longest input.
func (s *sequences) longest() int {
	n := 0
	for _, r := range s.rests {
		n = max(n, len(r))
	}
	return len(s.prefix) + n
}

// sequences returns the inputs of d.
func (e *Encoder) sequences(m *model.Model, d *Document) (*sequences, error) {
	s := &sequences{}
	var inputs [][]int32
	for _, r := range d.Requests {
		context, continuation, err := e.encode(r)
		if err != nil {
			return nil, err
		}
		input := append(slices.Clip(context), continuation...)
		input = input[max(0, len(input)-e.maxLength-1) : len(input)-1]
		i := slices.IndexFunc(inputs, func(x []int32) bool { return slices.Equal(x, input) })
		if i < 0 {
			i = len(inputs)
			inputs = append(inputs, input)
		}
		s.spans = append(s.spans, span{rest: i, first: len(input) - len(continuation), targets: continuation})
	}
	n := shared(m, inputs)
	s.prefix = inputs[0][:n]
	for _, in := range inputs {
		s.rests = append(s.rests, in[n:])
	}
	return s, nil
}

// shared returns the length of the beginning that all inputs can share.
func shared(m *model.Model, inputs [][]int32) int {
	n := len(inputs[0])
	for _, in := range inputs {
		if !m.SameRotation(len(in), len(inputs[0])) {
			return 0
		}
		n = min(n, len(in))
		for i, id := range in[:n] {
			if id != inputs[0][i] {
				n = i
				break
			}
		}
	}
	return n
}

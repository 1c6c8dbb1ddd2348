package hf

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/crepe-llm/crepe/gguf"
)

// The largest sizes that are believed, as package model has them.
const (
	maxBlocks    = 1 << 12
	maxWidth     = 1 << 18
	maxHeads     = 1 << 12
	maxHeadDim   = 1 << 12
	maxVocab     = 1 << 24
	maxPositions = 1 << 30
	maxExperts   = 1 << 12
)

// keys reads the metadata of a file. It keeps the first error and returns zero
// values after it, and knows which keys have been asked for: what is left over
// in the namespaces that must be understood is refused.
type keys struct {
	file  *gguf.File
	m     *gguf.Metadata
	arch  string // the namespace of names without a dot before them
	asked map[string]bool
	err   error
}

func newKeys(f *gguf.File) *keys {
	return &keys{file: f, m: &f.Metadata, asked: map[string]bool{}}
}

// full returns the key that name means: names of the tokenizer are whole.
func (k *keys) full(name string) string {
	if !strings.HasPrefix(name, "tokenizer.") {
		name = k.arch + "." + name
	}
	k.asked[name] = true
	return name
}

func (k *keys) fail(err error) {
	if k.err == nil {
		k.err = err
	}
}

// has reports whether a key is there.
func (k *keys) has(name string) bool { return k.m.Has(k.full(name)) }

// size returns a whole number in [1, most].
func (k *keys) size(name string, most int) int { return k.whole(name, 1, most) }

// whole returns a whole number in [least, most].
func (k *keys) whole(name string, least, most int) int {
	n, err := k.m.Int(k.full(name), least, most)
	if err != nil {
		k.fail(err)
		return max(least, 1)
	}
	return n
}

// sizeOr is size, or def without the key.
func (k *keys) sizeOr(name string, def, most int) int {
	if !k.has(name) {
		return def
	}
	return k.size(name, most)
}

// number returns a number above 0, in the fewest digits that give the same
// float32.
func (k *keys) number(name string) real {
	v, err := k.m.Float(k.full(name))
	if err == nil && !(v > 0) {
		err = fmt.Errorf("key %s: %g, want a number above 0", k.full(name), v)
	}
	if err != nil {
		k.fail(err)
		return 1
	}
	return real(shortest(v))
}

// numberOr is number, or def without the key.
func (k *keys) numberOr(name string, def real) real {
	if !k.has(name) {
		return def
	}
	return k.number(name)
}

// shortest returns the float64 that is written like v as float32: 1e-6 for the
// 9.99999997e-07 that is stored.
func shortest(v float64) float64 {
	if float64(float32(v)) != v {
		return v
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', -1, 32), 64)
	if err != nil {
		return v
	}
	return short
}

func (k *keys) boolOr(name string, def bool) bool {
	if !k.has(name) {
		return def
	}
	v, err := k.m.Bool(k.full(name))
	if err != nil {
		k.fail(err)
	}
	return v
}

func (k *keys) text(name string) string {
	v, err := k.m.Text(k.full(name))
	if err != nil {
		k.fail(err)
	}
	return v
}

func (k *keys) textOr(name, def string) string {
	if !k.has(name) {
		return def
	}
	return k.text(name)
}

// is fails unless a key, if it is there, holds the number want: with another,
// something would be computed that Hugging Face's class does not.
func (k *keys) is(name string, want float64, why string) {
	if !k.has(name) {
		return
	}
	v, err := k.m.Float(k.full(name))
	if err == nil && !(math.Abs(v-want) <= 1e-5*math.Abs(want)) {
		err = fmt.Errorf("key %s: %g, want %g: %s", k.full(name), v, want, why)
	}
	if err != nil {
		k.fail(err)
	}
}

// floats returns the elements of a tensor that says something of the model's
// shape, nil if there is none.
func (k *keys) floats(tensor string, n int) []real {
	t, ok := k.file.Tensor(tensor)
	if !ok {
		return nil
	}
	if len(t.Shape) != 1 || t.Shape[0] != n {
		k.fail(fmt.Errorf("tensor %s: shape %v, want [%d]", tensor, t.Shape, n))
		return nil
	}
	row := make([]float32, n)
	if err := k.file.ReadRows(t, row, 0, 1); err != nil {
		k.fail(err)
		return nil
	}
	out := make([]real, n)
	for i, v := range row {
		if !(v > 0) || math.IsInf(float64(v), 0) {
			k.fail(fmt.Errorf("tensor %s: element %d is %g, want a finite number above 0", tensor, i, v))
			return nil
		}
		out[i] = real(shortest(float64(v)))
	}
	return out
}

// leftOver refuses keys that nothing has asked for.
func (k *keys) leftOver() {
	for _, key := range k.m.Keys() {
		space, _, _ := strings.Cut(key, ".")
		if (space == k.arch || space == "tokenizer") && !k.asked[key] {
			v, _ := k.m.Get(key)
			k.fail(fmt.Errorf("key %s (%v) is not known: to ignore it could be to compute another model", key, v))
		}
	}
}

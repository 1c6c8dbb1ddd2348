package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// binder finds the tensors of one block, or of the head, by name and holds
// them against the shapes that the config asks for. With read unset it only
// compares headers: Open does that for every block before anything is read.
type binder struct {
	inv         *checkpoint.Inventory
	prefix      string // "model.layers.3."
	read        bool
	expert      bool  // Linears are an expert's, and read later
	expertBytes int64 // as in Model
	plain       bool  // as in Model
	pool        *pool
	engine      engine.Engine
	normEps     float32
	zeroCentred bool            // norms are stored less 1
	bound       map[string]bool // names asked for, with prefix
	errs        []error
}

// find returns the tensor of that name if its shape and type are right.
func (b *binder) find(name string, shape ...int) (checkpoint.Tensor, bool) {
	name = b.prefix + name
	b.bound[name] = true
	t, ok := b.inv.Tensor(name)
	if !ok {
		err := fmt.Errorf("tensor %s: missing, want shape %v", excerpt(name), shape)
		if listed := b.inv.Absent(name); listed != "" {
			err = fmt.Errorf("%w (%s)", err, listed)
		}
		b.errs = append(b.errs, err)
		return t, false
	}
	if !slices.Equal(t.Shape, shape) {
		b.errs = append(b.errs, fmt.Errorf("%s: tensor %s: shape %v, want %v", t.File, name, t.Shape, shape))
		return t, false
	}
	if !t.DType.Computable() {
		b.errs = append(b.errs, fmt.Errorf("%s: tensor %s: dtype %v, want F32, F16 or BF16", t.File, name, t.DType))
		return t, false
	}
	return t, true
}

// vector returns the elements of that name as float32.
func (b *binder) vector(name string, shape ...int) []float32 {
	t, ok := b.find(name, shape...)
	if !ok || !b.read {
		return nil
	}
	n := int(t.Elements())
	w := tensor.NewWeight(t.DType, 1, n)
	if err := readWeight(b.inv, t, w); err != nil {
		b.errs = append(b.errs, err)
		return nil
	}
	v := make([]float32, n)
	w.Row(v, 0)
	return v
}

// norm returns the RMS norm with the n weights of that name.
func (b *binder) norm(name string, n int) *engine.Norm {
	return &engine.Norm{W: b.engine.NewVec(b.gain(name, n)), Eps: b.normEps}
}

// gain returns what that norm multiplies with.
func (b *binder) gain(name string, n int) []float32 {
	v := b.vector(name, n)
	if b.zeroCentred {
		for i := range v {
			v[i]++ // in float32, as transformers adds it
		}
	}
	return v
}

// branch returns a Branch of layer behind the norm of that name.
func (b *binder) branch(norm string, width int, layer sublayer) *Branch {
	return &Branch{norm: b.norm(norm, width), gain: b.prefix + norm, layer: layer}
}

// linear returns the Linear of that name: name.weight, and name.bias if bias is set.
func (b *binder) linear(name string, out, in int, bias bool) *Linear {
	l := &Linear{Name: b.prefix + name, Rows: out, Cols: in, engine: b.engine, Expert: b.expert, streamed: b.expert}
	t, ok := b.find(name+".weight", out, in)
	l.stored = stored{inv: b.inv, tensor: t, pool: b.pool, plain: b.plain}
	if ok && !l.streamed {
		b.load(l)
	}
	if bias {
		l.bias = b.engine.NewVec(b.vector(name+".bias", out))
	}
	return l
}

// load reads l, unless headers are all that is looked at.
func (b *binder) load(l *Linear) {
	if !b.read {
		return
	}
	if err := l.load(); err != nil {
		b.errs = append(b.errs, err)
	}
}

// fused returns the Linear of that name, which holds parts of the given sizes
// one after the other.
func (b *binder) fused(name string, in int, bias bool, parts ...partSize) *Linear {
	var all []Part
	out := 0
	for _, p := range parts {
		all = append(all, Part{Name: p.name, Lo: out, Hi: out + p.rows})
		out += p.rows
	}
	l := b.linear(name, out, in, bias)
	l.Parts = all
	return l
}

type partSize struct {
	name string
	rows int
}

// err returns what was wrong, the first few of it, in one line.
func (b *binder) err() error {
	const most = 8
	var said []string
	for _, err := range b.errs {
		if line := err.Error(); !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	switch n := len(said); {
	case n == 0:
		return nil
	case n == 1:
		return b.errs[0]
	case n > most:
		said = append(said[:most], fmt.Sprintf("and %d more", n-most))
	}
	return errors.New(strings.Join(said, "; "))
}

// pool keeps the memory of weights for the next of the same type and size, so
// that a pass over all blocks takes the memory of one, or of two that are there at once.
type pool struct {
	mu   sync.Mutex
	free map[poolKey][]*tensor.Weight
}

func newPool() *pool { return &pool{free: map[poolKey][]*tensor.Weight{}} }

type poolKey struct {
	dtype      tensor.DType
	rows, cols int
}

// get returns a weight of undefined content.
func (p *pool) get(dtype tensor.DType, rows, cols int) *tensor.Weight {
	k := poolKey{dtype, rows, cols}
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.free[k]
	if len(free) == 0 {
		return tensor.NewWeight(dtype, rows, cols)
	}
	w := free[len(free)-1]
	p.free[k] = free[:len(free)-1]
	return w
}

// put takes w for a later get.
func (p *pool) put(w *tensor.Weight) {
	k := poolKey{w.DType, w.Rows, w.Cols}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free[k] = append(p.free[k], w)
}

// clear gives up all of it.
func (p *pool) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.free)
}

// ignorable reports whether a tensor that no block asked for changes nothing:
// old files hold the rotary frequencies, which follow from the config.
func ignorable(name string) bool { return strings.HasSuffix(name, ".rotary_emb.inv_freq") }

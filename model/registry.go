package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/engine"
)

// class is one architecture, by the name config.json gives it. A file that
// declares and registers one is all that a new architecture takes.
type class struct {
	name      string
	modelType string // of config.json, by which transformers finds it
	defaults  defaults
	turnsPart bool   // partial_rotary_factor is read, whatever the kind of rope
	typed     bool   // blocks have layer types, by which transformers groups rotary settings
	nested    string // key of the object with the text model's keys; "": none
	prefix    string // of the text model's tensors; "" is "model."

	act         engine.Activation // the MLP's
	zeroCentred bool              // RMSNorm multiplies with 1 + w
	scaledEmbed bool              // embeddings are multiplied with sqrt(Width)
	ropeNames   []string          // older names of rope type longrope

	// configure reads the keys that only this class has.
	configure func(k *keys, c *Config)

	// rotary reads rope and localRope; nil where readRope will do.
	rotary func(k *keys, c *Config)

	// block binds the tensors of block i.
	block func(c *Config, b *binder, i int) []*Branch
}

var classes = map[string]*class{}

// register adds an architecture; it is called from init.
func register(c *class) {
	if classes[c.name] != nil {
		panic(fmt.Sprintf("model: %s is registered twice", c.name))
	}
	classes[c.name] = c
}

// Architectures returns the names of the architectures that can be opened, sorted.
func Architectures() []string { return slices.Sorted(maps.Keys(classes)) }

func known() string { return strings.Join(Architectures(), ", ") }

func knownTypes() string {
	var types []string
	for _, cl := range classes {
		types = append(types, cl.modelType)
	}
	slices.Sort(types)
	return strings.Join(types, ", ")
}

// text returns the keys of the text model. Where they are in an object of
// their own, tie_word_embeddings beside it wins over the one inside.
func (cl *class) text(k *keys) (*keys, error) {
	if cl.nested == "" {
		return k, nil
	}
	in := k.object(cl.nested)
	if in == nil {
		k.failf(cl.nested, "an object")
		return nil, *k.err
	}
	const tied = "tie_word_embeddings"
	if k.set(tied) && (in.set(tied) || !in.present(tied)) {
		in.raw[tied] = k.raw[tied]
	}
	return in, *k.err
}

// tensors returns the prefix of the text model's tensors.
func (cl *class) tensors() string { return cmp.Or(cl.prefix, "model.") }

// checkActivation refuses an activation that the class does not implement.
func (cl *class) checkActivation(k *keys) {
	name, want := "hidden_act", []string{"silu", "swish"} // two names of one function
	if cl.act == engine.GELU {
		name, want = "hidden_activation", []string{"gelu_pytorch_tanh", "gelu_python_tanh"}
	}
	if !slices.Contains(want, k.textOr(name, want[0])) {
		k.failf(name, "%q", want[0])
	}
}

package model

import (
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
)

// Config is what config.json says of a decoder, in either spelling
// (transformers 4 or 5), with the defaults of its class.
type Config struct {
	Architecture string // the class's name, "LlamaForCausalLM"

	Blocks       int     // decoder blocks
	Width        int     // of the hidden states
	Vocab        int     // rows of the embedding; may exceed the tokenizer's
	MaxPositions int     // longest sequence the model was made for, tokens
	Heads        int     // query heads
	KVHeads      int     // key and value heads; divides Heads
	HeadDim      int     // width of a head; even
	Intermediate int     // width inside the MLP
	NormEps      float32 // inside the root of RMSNorm
	Tied         bool    // the embedding is the head where no head is stored

	class                     *class
	named                     string // by architectures, where that is another; "" where not
	prefix                    string // of the tensors but the head's: "model."
	qkvBias, outBias, mlpBias bool
	qkNorm                    bool    // heads of q and k are normed before they are turned
	windows                   []int   // [Blocks] keys that a query sees, itself included; 0 for all
	rope                      *rope   // of all blocks but those of
	localRope                 *rope   // the blocks with a window; nil for none of its own
	scoreDim                  float64 // scores are q·k / sqrt(scoreDim)
	scoreCap, logitCap        float32 // soft caps, c·tanh(x/c); 0 for none
	experts                   experts
	linear                    []bool          // [Blocks] Gated DeltaNet takes attention's place
	delta                     engine.DeltaNet // its sizes
}

// The largest sizes that are believed: well above any published model, and
// small enough that no product of two overflows.
const (
	maxBlocks    = 1 << 12
	maxWidth     = 1 << 18
	maxHeads     = 1 << 12
	maxHeadDim   = 1 << 12
	maxVocab     = 1 << 24
	maxPositions = 1 << 30
)

// ParseConfig reads config.json. It refuses, naming the key, a class that is
// not registered, sizes that cannot be, and settings that the class of
// transformers has and that are not implemented here. Keys that the class does not
// read change nothing, whatever they say, as in transformers.
func ParseConfig(data []byte) (*Config, error) {
	k, err := parseKeys(data)
	if err != nil {
		return nil, err
	}
	cl := k.class()
	if *k.err != nil {
		return nil, *k.err
	}
	c := &Config{Architecture: cl.name, class: cl, prefix: cl.tensors()}
	if names := k.texts("architectures"); len(names) == 1 && names[0] != cl.name {
		c.named = excerpt(names[0])
	}
	k.refuseEncoded()
	if k, err = cl.text(k); err != nil {
		return nil, err
	}
	if !k.boolOr(causal, true) {
		k.failf(causal, "true: attention here is causal")
	}
	c.readSizes(k, cl.defaults)
	cl.checkActivation(k)
	c.windows = make([]int, c.Blocks)
	c.scoreDim = float64(c.HeadDim)
	if cl.rotary == nil {
		c.rope = readRope(k, c)
	} else {
		cl.rotary(k, c)
	}
	cl.configure(k, c)
	c.refuseRopeByType(k)
	if *k.err != nil {
		return nil, *k.err
	}
	return c, nil
}

// causal is the key by which transformers makes any decoder attend in both directions.
const causal = "is_causal"

// class returns the class of a config: that of its model_type, as transformers
// goes by it; where there is none, that which architectures names.
func (k *keys) class() *class {
	const byType, byName = "model_type", "architectures"
	if k.set(byType) {
		name := k.textOr(byType, "")
		for _, cl := range classes {
			if cl.modelType == name {
				return cl
			}
		}
		k.failf(byType, "one of: %s", knownTypes())
		return nil
	}
	names := k.texts(byName)
	if *k.err == nil && len(names) != 1 {
		k.failf(byName, "one name of: %s", known())
	}
	if *k.err != nil {
		return nil
	}
	cl := classes[names[0]]
	if cl == nil {
		*k.err = fmt.Errorf("architecture %q is not known; known: %s", excerpt(names[0]), known())
	}
	return cl
}

// findPrefix leaves out "model." where the tensors of inv have no such prefix: a
// model that was saved without its head, as an embedding model is, names them so.
func (c *Config) findPrefix(inv *checkpoint.Inventory) {
	const norm = "norm.weight"
	bare := strings.TrimPrefix(c.prefix, "model.")
	_, whole := inv.Tensor(c.prefix + norm)
	if _, found := inv.Tensor(bare + norm); found && !whole {
		c.prefix = bare
	}
}

// defaults are the values a class takes for keys that are missing.
type defaults struct {
	kvHeads      int  // 0: as many as query heads
	kvNull       bool // null is as many as query heads, whatever kvHeads is
	headDim      int  // 0: Width/Heads
	headNull     bool // null is Width/Heads
	maxPositions int
	normEps      float64
	ropeTheta    float64
	ropePart     float64 // partial_rotary_factor; 0: 1
	ropeOriginal int     // original_max_position_embeddings at the top; 0: none
	tied         bool
}

// readSizes reads the keys that all classes share. What has no sensible
// default must be there.
func (c *Config) readSizes(k *keys, d defaults) {
	c.Blocks = k.size("num_hidden_layers", maxBlocks)
	c.Width = k.size("hidden_size", maxWidth)
	c.Vocab = k.size("vocab_size", maxVocab)
	c.Intermediate = k.size("intermediate_size", maxWidth)
	c.MaxPositions = k.sizeOr("max_position_embeddings", d.maxPositions, maxPositions)
	c.NormEps = float32(k.positiveOr("rms_norm_eps", d.normEps))
	if !(c.NormEps > 0 && c.NormEps < 1) {
		k.failf("rms_norm_eps", "a number in (0, 1)")
	}
	c.Tied = k.boolOr("tie_word_embeddings", d.tied)
	c.Heads = k.size("num_attention_heads", maxHeads)
	c.readHeads(k, d)
}

func (c *Config) readHeads(k *keys, d defaults) {
	c.KVHeads = c.Heads
	const kvHeads, headDim = "num_key_value_heads", "head_dim"
	switch {
	case k.set(kvHeads), k.present(kvHeads) && d.kvHeads > 0 && !d.kvNull:
		c.KVHeads = k.size(kvHeads, maxHeads)
	case !k.present(kvHeads) && d.kvHeads > 0:
		c.KVHeads = d.kvHeads
	}
	if c.Heads%c.KVHeads != 0 {
		k.failf(kvHeads, "a divisor of num_attention_heads %d (the default here is %d)", c.Heads, c.KVHeads)
	}
	switch {
	case k.set(headDim), k.present(headDim) && !d.headNull:
		c.HeadDim = k.size(headDim, maxHeadDim)
	case d.headDim > 0 && !k.present(headDim):
		c.HeadDim = d.headDim
	default:
		if c.HeadDim = c.Width / c.Heads; c.Width%c.Heads != 0 {
			k.failf("num_attention_heads", "a divisor of hidden_size %d, or head_dim", c.Width)
		}
	}
	if c.HeadDim < 2 || c.HeadDim%2 != 0 {
		k.failf(headDim, "an even number above 0, not %d: rotary embedding turns pairs", c.HeadDim)
	}
	if c.Heads*c.HeadDim > maxWidth {
		k.failf(headDim, "at most %d over all heads", maxWidth)
	}
}

// The layer types of transformers 5.
const (
	fullAttention    = "full_attention"
	slidingAttention = "sliding_attention"
)

// setWindows gives the blocks that slides says a window of that many keys; 0 is none.
func (c *Config) setWindows(window int, slides func(block int) bool) {
	for i := range c.windows {
		if slides(i) {
			c.windows[i] = window
		}
	}
}

// setWindowsByType is setWindows for a class that reads layer_types: if the config
// has them, the blocks that they call sliding have the window.
func (c *Config) setWindowsByType(k *keys, window int, slides func(block int) bool) {
	types := k.texts("layer_types")
	if types == nil {
		c.setWindows(window, slides)
		return
	}
	if len(types) != c.Blocks {
		k.failf("layer_types", "%d names, one a block", c.Blocks)
		return
	}
	for i, name := range types {
		switch {
		case name == fullAttention:
		case name != slidingAttention:
			k.failf("layer_types", "%s or %s, not %q", fullAttention, slidingAttention, excerpt(name))
		case window == 0:
			k.failf("layer_types", "%s everywhere: no sliding_window is in use", fullAttention)
		default:
			c.windows[i] = window
		}
	}
}

// everyBlock is the argument of setWindows for a class whose blocks are alike.
func everyBlock(int) bool { return true }

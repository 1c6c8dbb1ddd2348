package model

import (
	"math"
	"slices"
	"strings"
)

// rope is a rotary position embedding. Pair i of a head's first dim
// dimensions, (i, i+dim/2), turns by the angle position · inv_i,
//
//	inv_i = theta^(−2i/dim), i = 0 … dim/2−1
//
// changed by the scaling kind:
//
//	default   no change
//	linear    inv_i / factor
//	llama3    with wavelength λ = 2π/inv_i, C = original:
//	          λ < C/high: inv_i;  λ > C/low: inv_i/factor;  between, with
//	          s = (C/λ − low)/(high − low): (1−s)·inv_i/factor + s·inv_i
//	longrope  inv_i / long_i in sequences of more than C tokens, else
//	          inv_i / short_i; cosines and sines times scale
//	yarn      see yarn.go
//	dynamic   in sequences of T > C tokens theta is multiplied by
//	          (factor·T/C − factor + 1)^(dim/(dim−2))
//
// Frequencies are float32, as in transformers.
type rope struct {
	kind        string
	theta       float64
	dim         int     // turned dimensions of a head; even
	factor      float64 // of all but default and longrope
	low, high   float64 // llama3: low_freq_factor, high_freq_factor; yarn: the ramp's ends
	original    int     // original_max_position_embeddings, C; dynamic: max_position_embeddings
	short, long []float64
	scale       float64 // of cosines and sines; 1 but in longrope and yarn
}

var ropeKinds = []string{"default", "linear", "llama3", "longrope", "yarn", "dynamic"}

// ropeSettings returns rope_scaling, which wins, or rope_parameters; nil if there is
// neither. An empty object is none.
func ropeSettings(k *keys) *keys {
	if in := k.object("rope_scaling"); in != nil && len(in.raw) > 0 {
		return in
	}
	return k.object("rope_parameters")
}

// refuseRopeByType refuses rotary settings by layer type in a class that has layer
// types but one rope: transformers takes them apart by type and finds none for the whole.
func (c *Config) refuseRopeByType(k *keys) {
	in := ropeSettings(k)
	if in == nil || !c.class.typed || in.present("rope_type") && in.present("rope_theta") {
		return
	}
	for i, window := range c.windows {
		name := fullAttention
		switch {
		case c.linear != nil && c.linear[i]:
			name = linearAttention
		case window > 0:
			name = slidingAttention
		}
		if in.present(name) {
			in.failf(name, "rope_type and rope_theta for all blocks: %s has one rope", c.class.name)
			return
		}
	}
}

// readRope reads ropeSettings, which may hold rope_theta and the type (rope_type or,
// older, type).
func readRope(k *keys, c *Config) *rope {
	in := ropeSettings(k)
	r := newRope(c.class.defaults.ropeTheta, c.HeadDim)
	if in == nil || !in.present("rope_theta") {
		r.theta = k.positiveOr("rope_theta", r.theta)
	}
	r.readDim(k, k, c)
	if in != nil {
		r.read(k, in, c)
	}
	return r
}

func newRope(theta float64, dim int) *rope {
	return &rope{kind: "default", theta: theta, dim: dim, scale: 1}
}

// read takes what an object of rotary settings says; top is the config.
func (r *rope) read(top, in *keys, c *Config) {
	r.theta = in.positiveOr("rope_theta", r.theta)
	r.readDim(top, in, c)
	name := "rope_type"
	if !in.present(name) && in.present("type") {
		name = "type"
	}
	if !in.set(name) && in.set("factor") {
		in.failf(name, "one of %s", strings.Join(ropeKinds, ", "))
	}
	r.kind = in.textOr(name, r.kind)
	if slices.Contains(c.class.ropeNames, r.kind) {
		r.kind = "longrope"
	}
	switch r.kind {
	case "default":
	case "linear":
		r.factor = in.positive("factor")
	case "llama3":
		r.factor = in.positive("factor")
		r.low = in.positive("low_freq_factor")
		r.high = in.positive("high_freq_factor")
		r.original = readOriginal(top, in, c)
		if !(r.high > r.low) {
			in.failf("high_freq_factor", "more than low_freq_factor %g", r.low)
		}
	case "longrope":
		r.readLong(top, in, c)
	case "yarn":
		r.readYarn(top, in, c)
	case "dynamic":
		r.factor = in.positive("factor")
		r.original = c.MaxPositions
		if r.dim < 4 || r.factor < 1 {
			in.failf("factor", "at least 1, and at least 4 turned dimensions")
		}
	default:
		in.failf(name, "one of %s", strings.Join(ropeKinds, ", "))
	}
	r.refusePart(top, in, c)
}

const partOfHead = "partial_rotary_factor"

// readDim reads partial_rotary_factor, for classes that have it.
func (r *rope) readDim(top, in *keys, c *Config) {
	def := c.class.defaults.ropePart
	if !c.class.turnsPart || !in.set(partOfHead) && (in != top || def == 0) {
		return
	}
	part := in.positiveOr(partOfHead, def)
	r.dim = int(float64(c.HeadDim) * part)
	if part > 1 || r.dim < 2 || r.dim%2 != 0 {
		in.failf(partOfHead, "a share of head_dim %d that is even and above 0", c.HeadDim)
		r.dim = c.HeadDim
	}
}

// refusePart refuses partial_rotary_factor where the class does not read it but
// the kind of rope does: transformers makes too few frequencies then.
func (r *rope) refusePart(top, in *keys, c *Config) {
	for _, k := range []*keys{top, in} {
		if !c.class.turnsPart && r.kind != "default" && k.positiveOr(partOfHead, 1) != 1 {
			k.failf(partOfHead, "1 in %s with rope type %s", c.class.name, r.kind)
		}
	}
}

// readOriginal returns original_max_position_embeddings: that at the top first,
// then that inside, else max_position_embeddings.
func readOriginal(top, in *keys, c *Config) int {
	const name = "original_max_position_embeddings"
	if top.set(name) {
		return top.size(name, maxPositions)
	}
	return in.sizeOr(name, c.MaxPositions, maxPositions)
}

// readLong reads longrope. C at the top wins over C inside, and so does its
// default there.
func (r *rope) readLong(top, in *keys, c *Config) {
	const original = "original_max_position_embeddings"
	switch {
	case top.set(original):
		r.original = top.size(original, maxPositions)
	case c.class.defaults.ropeOriginal > 0:
		r.original = c.class.defaults.ropeOriginal
	default:
		r.original = in.sizeOr(original, c.MaxPositions, maxPositions)
	}
	r.short = in.positives("short_factor", r.dim/2)
	r.long = in.positives("long_factor", r.dim/2)
	factor := in.positiveOr("factor", float64(c.MaxPositions)/float64(r.original))
	if factor > 1 {
		r.scale = math.Sqrt(1 + math.Log(factor)/math.Log(float64(r.original)))
	}
	if r.scale = in.positiveOr("attention_factor", r.scale); math.IsInf(r.scale, 0) {
		top.failf(original, "more than 1")
	}
}

// regime tells lengths of sequences apart that have frequencies of their own; 0
// is that of short ones.
func (r *rope) regime(tokens int) int {
	switch {
	case r.kind == "longrope" && tokens > r.original:
		return 1
	case r.kind == "dynamic" && tokens > r.original:
		return tokens
	}
	return 0
}

// frequencies returns inv, radians per position, [dim/2].
func (r *rope) frequencies(regime int) []float32 {
	theta := r.theta
	if r.kind == "dynamic" && regime > 0 {
		stretch := r.factor*float64(regime)/float64(r.original) - (r.factor - 1)
		theta *= math.Pow(stretch, float64(r.dim)/float64(r.dim-2))
	}
	inv := make([]float32, r.dim/2)
	for i := range inv {
		exponent := float32(2*i) / float32(r.dim)
		wave := float32(math.Pow(theta, float64(exponent)))
		inv[i] = 1 / wave
		switch {
		case r.kind == "linear":
			inv[i] /= float32(r.factor)
		case r.kind == "llama3":
			inv[i] = r.llama3(inv[i])
		case r.kind == "yarn":
			inv[i] = r.yarn(i, wave)
		case r.kind == "longrope" && regime > 0:
			inv[i] = 1 / (float32(r.long[i]) * wave)
		case r.kind == "longrope":
			inv[i] = 1 / (float32(r.short[i]) * wave)
		}
	}
	return inv
}

func (r *rope) llama3(inv float32) float32 {
	wavelength := 2 * math.Pi / float64(inv)
	c := float64(r.original)
	slow := inv / float32(r.factor)
	switch {
	case wavelength < c/r.high:
		return inv
	case wavelength > c/r.low:
		return slow
	}
	s := float32((c/wavelength - r.low) / (r.high - r.low))
	return (1-s)*slow + s*inv
}

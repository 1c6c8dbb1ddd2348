package model

import "math"

// readYarn reads YaRN, which keeps the frequencies of pairs that turn often
// within the C tokens that a model was made for, divides by factor those that
// turn less than once or so, and blends between. With
//
//	d(β) = dim · ln(C/(2πβ)) / (2 ln theta)
//
// the pair that turns β times in C tokens, r_i rises from 0 at i = low =
// ⌊d(beta_fast)⌋ to 1 at i = high = ⌈d(beta_slow)⌉, and
//
//	inv′_i = (1 − r_i)·inv_i + r_i·inv_i/factor
//
// Cosines and sines are multiplied by attention_factor; where it is absent by
// m(1), or m(mscale)/m(mscale_all_dim) where both are there and not 0,
//
//	m(s) = 0.1·s·ln factor + 1, but 1 for factor ≤ 1
//
// C is original_max_position_embeddings, that at the top first; absent it is
// max_position_embeddings. beta_fast is 32 and beta_slow 1 unless given; with
// truncate false, low and high are not rounded.
//
// Peng et al. 2023, arXiv:2309.00071, section 3, as in transformers 5.23.
func (r *rope) readYarn(top, in *keys, c *Config) {
	r.original = readOriginal(top, in, c)
	r.factor = float64(c.MaxPositions) / float64(r.original)
	if !in.present("factor") || in.set("factor") {
		r.factor = in.positive("factor")
	}
	if !(r.theta > 1) {
		in.failf("rope_theta", "more than 1 for yarn, not %g", r.theta)
	}
	m := func(s float64) float64 {
		if r.factor <= 1 {
			return 1
		}
		return 0.1*s*math.Log(r.factor) + 1
	}
	r.scale = m(1)
	if in.holds("mscale") && in.holds("mscale_all_dim") {
		r.scale = m(in.positive("mscale")) / m(in.positive("mscale_all_dim"))
	}
	r.scale = in.positiveOr("attention_factor", r.scale)

	pair := func(turns float64) float64 {
		return float64(r.dim) * math.Log(float64(r.original)/(2*math.Pi*turns)) / (2 * math.Log(r.theta))
	}
	r.low, r.high = pair(in.positiveOr("beta_fast", 32)), pair(in.positiveOr("beta_slow", 1))
	if in.boolOr("truncate", true) {
		r.low, r.high = math.Floor(r.low), math.Ceil(r.high)
	}
	r.low, r.high = max(r.low, 0), min(r.high, float64(r.dim-1))
	if r.low == r.high {
		r.high += 0.001 // as transformers keeps the slope finite
	}
}

// yarn returns the frequency of pair i, whose unchanged one is 1/wave.
func (r *rope) yarn(i int, wave float32) float32 {
	ramp := (float32(i) - float32(r.low)) / float32(r.high-r.low)
	keep := 1 - min(max(ramp, 0), 1)
	return (1-keep)/(float32(r.factor)*wave) + keep/wave
}

package model

// Qwen2 and Qwen2.5: Llama with biases on q, k and v, always.
func init() {
	register(&class{
		name:      "Qwen2ForCausalLM",
		modelType: "qwen2",
		typed:     true,
		defaults:  defaults{kvHeads: 32, kvNull: true, maxPositions: 32768, normEps: 1e-6, ropeTheta: 1e4},
		configure: func(k *keys, c *Config) {
			c.qkvBias = true
			c.setWindowsByType(k, qwenWindow(k), qwenSlides(k))
		},
		block: llamaLayer,
	})
}

// qwenWindow returns the window of Qwen's sliding blocks, 0 where
// use_sliding_window is off, whatever sliding_window says.
func qwenWindow(k *keys) int {
	if !k.boolOr("use_sliding_window", false) || (k.present("sliding_window") && !k.set("sliding_window")) {
		return 0
	}
	return k.sizeOr("sliding_window", 4096, maxPositions)
}

// qwenSlides tells which blocks slide: those from max_window_layers on.
func qwenSlides(k *keys) func(block int) bool {
	first := 28
	if k.present("max_window_layers") {
		first = k.whole("max_window_layers", 0, maxBlocks)
	}
	return func(block int) bool { return block >= first }
}

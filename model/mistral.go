package model

// Mistral: Llama with a window on every block unless sliding_window is null.
func init() {
	register(&class{
		name:      "MistralForCausalLM",
		modelType: "mistral",
		defaults:  defaults{headNull: true, kvHeads: 8, maxPositions: 4096 * 32, normEps: 1e-6, ropeTheta: 1e4},
		configure: func(k *keys, c *Config) {
			window := k.window()
			if !k.present("sliding_window") {
				window = 4096 // the class's default; null is no window
			}
			c.setWindowsByType(k, window, everyBlock)
		},
		block: llamaLayer,
	})
}

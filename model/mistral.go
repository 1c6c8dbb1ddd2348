package model

// Mistral: Llama with a window on every block unless sliding_window is null.
func init() {
	register(&class{
		name:     "MistralForCausalLM",
		defaults: defaults{kvHeads: 8, maxPositions: 4096 * 32, normEps: 1e-6, ropeTheta: 1e4},
		reads:    []string{"sliding_window"},
		configure: func(k *keys, c *Config) {
			window := 0
			if k.set("sliding_window") {
				window = k.size("sliding_window", maxPositions)
			} else if !k.present("sliding_window") {
				window = 4096 // the class's default; null is no window
			}
			c.setWindows(k, window, func(int) bool { return true })
		},
		block: preNormBlock,
	})
}

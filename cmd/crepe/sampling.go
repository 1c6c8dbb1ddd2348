package main

import (
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/generate"
)

// addSampling adds the flags that say how tokens are chosen.
func addSampling(fl *pflag.FlagSet, s *generate.Sampling) {
	fl.Float64Var(&s.Temperature, "temperature", 0, "0 takes the most probable token; above 0 samples, at 1 by the model's probabilities")
	fl.IntVar(&s.TopK, "top-k", 0, "sample from the K most probable tokens (0: all)")
	fl.Float64Var(&s.TopP, "top-p", 0, "sample from the most probable tokens that together have this probability (0: all)")
	fl.Uint64Var(&s.Seed, "seed", 0, "seed for sampling")
}

// checkSampling refuses what addSampling's flags cannot be.
func checkSampling(s generate.Sampling, given func(flag string) bool) error {
	for _, flag := range []string{"top-k", "top-p", "seed"} {
		if given(flag) && s.Temperature == 0 {
			return usageError{fmt.Errorf("--%s: only with a --temperature above 0", flag)}
		}
	}
	if err := s.Validate(); err != nil {
		return usageError{err}
	}
	return nil
}

// maxPrompt is more than any model takes.
const maxPrompt = 64 << 20 // bytes

// readPrompt reads all of r, which errors call by that name.
func readPrompt(name string, r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPrompt+1))
	if err == nil && len(data) > maxPrompt {
		err = fmt.Errorf("more than %d bytes", maxPrompt)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(data), valid(name, string(data))
}

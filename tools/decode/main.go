// Command decode measures how fast a model continues a text, for
// tools/peer_forward.py to compare with transformers.
//
//	go run ./tools/decode [-compute bf16] [-prompt 32] [-tokens 64] MODEL
//
// The prompt is made of ids at random; it prints the seconds that it took and
// the new tokens a second after it, greedy.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/model"
)

func main() {
	compute := flag.String("compute", "bf16", "f32 or bf16")
	prompt := flag.Int("prompt", 32, "tokens of the prompt")
	tokens := flag.Int("tokens", 64, "new tokens")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *compute, *prompt, *tokens); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, compute string, prompt, tokens int) error {
	inv, err := checkpoint.Open(dir)
	if err != nil {
		return err
	}
	defer inv.Close()
	c, err := engine.ParseCompute(compute)
	if err != nil {
		return err
	}
	m, err := model.Open(inv, model.Options{Engine: cpu.New(c)})
	if err != nil {
		return err
	}
	g, err := generate.New(m, 0, nil)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 0))
	ids := make([]int32, prompt)
	for i := range ids {
		ids[i] = int32(rng.IntN(m.Config.Vocab))
	}
	start := time.Now()
	var first time.Time
	n := 0
	_, err = g.Run(context.Background(), ids, generate.Options{MaxTokens: tokens}, func(int32) error {
		if n++; n == 1 {
			first = time.Now()
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%.3f s for the prompt, %.2f tokens/s after it\n", first.Sub(start).Seconds(), float64(n-1)/time.Since(first).Seconds())
	return nil
}

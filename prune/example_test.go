package prune_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

func ExampleRun() {
	dir, err := demo.ModelDir() // any Hugging Face folder
	if err != nil {
		log.Fatal(err)
	}
	inv, err := checkpoint.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer inv.Close()
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		log.Fatal(err)
	}
	out, err := os.MkdirTemp("", "crepe")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(out)
	report, err := prune.Run(context.Background(), inv, m, prune.Options{
		Recipe:      recipe.Recipe{Method: "crepe", Pattern: "2:4"},
		Output:      filepath.Join(out, "sparse"),
		Calibration: &windows.Set{Source: "mine", SeqLen: 4, Tokens: [][]int32{{0, 10, 20, 30}, {0, 40, 50, 60}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %.0f %% of %d Linears are zeros\n", report.Pattern, 100*report.Sparsity.Measured, len(report.Linears))
	// Output: 2:4: 50 % of 42 Linears are zeros
}

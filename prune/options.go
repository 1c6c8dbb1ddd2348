// Package prune is the driver: it prunes a model block by block and writes the
// result.
//
// For every decoder block in order (Sun et al. 2023 and all that follow them):
// every calibration sequence runs through the block while it is still dense,
// and what enters each Linear is gathered; each Linear is scored, masked and
// written; the sequences run through the pruned block, and what leaves it
// enters the next. So errors propagate as they will in the pruned model, and
// the memory is one block's weights, the next one's if there is room, and one set
// of hidden states, whatever the number of blocks.
//
// A method that needs no data skips the sequences.
//
// A recipe is a list of steps: score, order, select, refine, update (step.go). A
// stream takes the sequences from block to block (stream.go), a pruner takes each
// matrix of a block through the steps (pruner.go), and an input owns the Gram matrix
// that its Linears share (input.go). Run writes what comes of it (run.go, blocks.go),
// InMemory keeps the masks (memory.go), and the measures of an allocation are taken
// along the same stream (allocation.go). What is fitted to the dense model's output is
// pruned branch by branch (fit.go) and may be rebuilt (rebuild.go). A gauge measures what
// becomes of each Linear (gauge.go), and the output may be packed (packed.go).
package prune

import (
	"errors"
	"path/filepath"

	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

// Options say what to do with a model.
type Options struct {
	Recipe recipe.Recipe

	// Model names the model in the report and the manifest; it is not opened.
	Model string

	// Output is the folder to make. It must not exist, or be empty, or be
	// allowed to be replaced by Overwrite.
	Output    string
	Overwrite bool

	// Pack has the output in packed form, as package pack writes it of what the run would
	// write else: values of these integers, or, if they are zero, of the weights' own type.
	// Nil packs nothing. An interrupted run may be gone on with by another form.
	Pack *tensor.Integers

	// Resume goes on with the partial output of an interrupted run with the
	// same inputs and recipe. Without one it starts anew.
	Resume bool

	// Calibration is what the statistics are gathered on; nil only for a
	// method that needs none.
	Calibration *windows.Set

	// Masks are what InMemory made of the same recipe and calibration: what they
	// prune is written, and nothing is scored again. Usually nil.
	Masks Masks

	// Evaluation is what perplexity is measured on, before and after; nil
	// measures none.
	Evaluation *windows.Set

	// Memory is the budget in bytes: hidden states that would exceed it live
	// in a file beside the output. 0 takes what the system has to give.
	Memory int64

	Progress progress.Func
	Warn     func(format string, args ...any) // may be nil
}

// tokens returns how many tokens calibrate.
func (o *Options) tokens() int {
	if o.Calibration == nil {
		return 0
	}
	return len(o.Calibration.Tokens) * o.Calibration.SeqLen
}

func (o *Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(format, args...)
	}
}

// Validate checks what can be checked without the model.
func (o *Options) Validate() error {
	resolved, err := o.Recipe.Resolve()
	switch {
	case err != nil:
		return err
	case o.Output == "":
		return errors.New("output: empty, want a folder")
	case resolved.Method.NeedsData && o.Calibration == nil:
		return errors.New("calibration: none, but " + needing(resolved) + " needs it")
	case o.Pack != nil:
		return o.Pack.Check()
	}
	return nil
}

// needing names what needs data.
func needing(r recipe.Resolved) string {
	switch {
	case r.Observes:
	case r.Rotate != nil:
		return "rotation " + r.Rotate.Name
	default:
		return "allocation " + r.Allocate.Name
	}
	return "method " + r.Method.Name
}

// RecipePath returns where the recipe of a run is written: beside its output.
func RecipePath(output string) string { return filepath.Clean(output) + ".recipe.yaml" }

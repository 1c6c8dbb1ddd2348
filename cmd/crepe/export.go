package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/gguf"
	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/session"
)

type exportFlags struct {
	output, kind string
	overwrite    bool
}

func newExport(a *app) *cobra.Command {
	var f exportFlags
	c := &cobra.Command{
		Use:   "export MODEL -o FILE.gguf [flags]",
		Short: "Write a model as a GGUF file for llama.cpp",
		Long: `Write MODEL, pruned or not, as one GGUF file that llama.cpp loads, with its
tokenizer and chat template.

Matrices are written as --type says, vectors and the routers of experts in float32.
With q4_0 the embedding and the head are q8_0. Zeros stay zeros in every type.

What a GGUF file cannot say of a model is an error that names it. The file appears
whole or not at all.`,
		Example: `  crepe export ./sparse -o sparse.gguf
  crepe export ./sparse -o sparse-q8_0.gguf --type q8_0`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			kind, err := f.check()
			if err != nil {
				return err
			}
			return a.export(c.Context(), args[0], f, kind)
		},
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVarP(&f.output, "output", "o", "", "file to write")
	fl.StringVar(&f.kind, "type", "bf16", "type of the matrices: "+strings.Join(exportNames(), ", "))
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace a file that is there")
	complete(c, map[string][]string{"type": exportNames()})
	return c
}

// exportNames are the values of --type.
func exportNames() []string {
	var names []string
	for _, t := range hf.ExportTypes {
		names = append(names, strings.ToLower(t.String()))
	}
	return names
}

// check refuses what can be seen to be wrong before anything is opened.
func (f *exportFlags) check() (gguf.Type, error) {
	switch {
	case f.output == "":
		return 0, usageError{errors.New("--output: want the file to write, -o FILE.gguf")}
	case !hf.IsGGUF(f.output):
		return 0, usageError{fmt.Errorf("--output: %q, want a name that ends in %s", f.output, hf.Ext)}
	}
	for i, name := range exportNames() {
		if name == f.kind {
			return hf.ExportTypes[i], nil
		}
	}
	return 0, usageError{fmt.Errorf("--type: %q, want one of %s", f.kind, strings.Join(exportNames(), ", "))}
}

func (a *app) export(ctx context.Context, name string, f exportFlags, kind gguf.Type) error {
	meter := a.startMeter()
	defer meter.finish()
	o, err := a.open(ctx, name, a.options(session.Auto, 0))
	if err != nil {
		return err
	}
	defer o.Close()
	bar := progress.Func(meter.update).Start("export", o.Inventory.WeightBytes(), "bytes")
	return hf.Export(ctx, o.Inventory, f.output, hf.ExportOptions{
		Name: modelName(o.Dir), Type: kind, Overwrite: f.overwrite,
		Progress: bar.Add,
	})
}

// modelName is the name of a model's folder or file.
func modelName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil { // "." has a name, too
		dir = abs
	}
	return trimGGUF(filepath.Base(dir))
}

// trimGGUF takes the ending of a GGUF file's name away.
func trimGGUF(name string) string {
	if hf.IsGGUF(name) {
		return name[:len(name)-len(hf.Ext)]
	}
	return name
}

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/verify"
)

// verification is what crepe verify --json prints.
type verification struct {
	Folder string `json:"folder"`
	Dense  string `json:"dense,omitempty"` // as given
	*verify.Result
}

func newVerify(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify DIR [DENSE] [flags]",
		Short: "Check a pruned folder against its crepe.json and its dense model",
		Long: `Check DIR, a folder that crepe prune wrote, against its crepe.json: the SHA-256 of
config and weights, and the zeros of every Linear. Every Linear must have as many
zeros as crepe.json says, and pruned ones at least as many as the recipe asks for: in
each group of N:M (in the recorded order of the columns), in each row or in the whole
matrix, for each part if fused matrices were split, and for each block if the sparsity
was allocated.

With DENSE, the MODEL that was pruned, also check that its files have the hashes of
crepe.json; that tensors have its names, types and shapes; that everything that is
not pruned, other files included, has its bytes; that weights which are not zero are
its weights, unless an update changed them; and that no more weights were set to zero
than the recipe asks for.

Each finding is one line on stdout. The exit code is 0 if there is none, and 1
otherwise. crepe verify does not measure perplexity; crepe eval does.`,
		Example: `  crepe verify demo-crepe-50
  crepe verify ./sparse ./llama-3.2-1b
  crepe verify ./sparse org/name --json`,
		Args: argsBetween(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			dense := ""
			if len(args) == 2 {
				dense = args[1]
			}
			return a.verify(c.Context(), args[0], dense, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on stdout")
	complete(c, nil)
	return c
}

func (a *app) verify(ctx context.Context, dir, dense string, asJSON bool) error {
	meter := a.startMeter()
	defer meter.finish()
	o := verify.Options{Progress: meter.update}
	if dense != "" {
		from, err := session.Locate(ctx, dense, a.options("", 0).Hub())
		if err != nil {
			return err
		}
		if o.Dense, err = hf.OpenModel(from); err != nil {
			return err
		}
		defer o.Dense.Close()
	}
	res, err := verify.Folder(ctx, dir, o)
	if err != nil {
		return err
	}
	meter.finish()
	if asJSON {
		if err := json.NewEncoder(a.stdout).Encode(verification{dir, dense, res}); err != nil {
			return err
		}
	} else {
		a.showVerification(res, dir, dense)
	}
	switch n := len(res.Findings); n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s: 1 finding", dir)
	default:
		return fmt.Errorf("%s: %d findings", dir, n)
	}
}

// showVerification prints the findings, or what was found to be right.
func (a *app) showVerification(res *verify.Result, dir, dense string) {
	for _, f := range res.Findings {
		fmt.Fprintln(a.text(), f)
	}
	if len(res.Findings) > 0 {
		return
	}
	against := "crepe.json"
	if res.Files == 0 {
		against += " (which has no hashes of the weights)"
	}
	if dense != "" {
		against += " and " + dense
	}
	fmt.Fprintf(a.text(), "%s: verified against %s: %d tensors, %.3f %% zeros in %d Linears\n",
		label(dir), label(against), res.Tensors, 100*float64(res.Zeros)/float64(max(res.Weights, 1)), res.Linears)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/pack"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/tensor"
)

// packing is what crepe pack and crepe unpack print with --json.
type packing struct {
	Model  string `json:"model"`
	Output string `json:"output"`
	*pack.Result
}

type packFlags struct {
	values    valuesFlags // of pack only
	output    string
	overwrite bool
	asJSON    bool
}

func (f *packFlags) declare(c *cobra.Command) {
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVarP(&f.output, "output", "o", "", "folder to write")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace a folder that crepe wrote")
	fl.BoolVar(&f.asJSON, "json", false, "print one JSON object on stdout")
}

func (f *packFlags) check() error {
	if f.output == "" {
		return usageError{errors.New("--output: want the folder to write, -o DIR")}
	}
	return nil
}

// valueNames are what --values takes.
func valueNames() (names []string) {
	for _, v := range pack.Values {
		names = append(names, v.Name)
	}
	return names
}

// valuesFlags are the flags that say what packed values are.
type valuesFlags struct {
	values string
	group  int
}

// declare adds the flags; values is the name of the first, and by default it is def.
func (f *valuesFlags) declare(fl *pflag.FlagSet, values, def, help string) {
	fl.StringVar(&f.values, values, def, help)
	fl.IntVar(&f.group, "group", pack.DefaultGroup, "columns that share a scale, with int8 and int4: 32, 64 or 128")
}

// integers returns what the flags say, of which the first has that name.
func (f *valuesFlags) integers(fl *pflag.FlagSet, values string) (tensor.Integers, error) {
	names := valueNames()
	i := slices.Index(names, f.values)
	if i < 0 {
		return tensor.Integers{}, usageError{fmt.Errorf("--%s: %q, want %s", values, f.values, strings.Join(names, ", "))}
	}
	k := pack.Values[i].Integers
	if k.Bits == 0 {
		if fl.Changed("group") {
			return k, usageError{fmt.Errorf("--group: it says how int8 and int4 share scales; add --%s int8", values)}
		}
		return k, nil
	}
	k.Group = f.group
	if err := k.Check(); err != nil {
		return k, usageError{fmt.Errorf("--group: %w", err)}
	}
	return k, nil
}

func newPack(a *app) *cobra.Command {
	var f packFlags
	c := &cobra.Command{
		Use:   "pack MODEL -o DIR [flags]",
		Short: "Write a pruned model in packed form: smaller, and faster to run",
		Long: `Write MODEL, which is pruned, to a folder in which its Linears are in packed form: a
bit for every weight, and the weights that are not zero. At 50 % sparsity a Linear in
bfloat16 takes 0.57 of its size, at 70 % 0.37. A Linear that would not be smaller stays
as it is, and so does everything else.

Every command that takes a MODEL takes a packed one, and computes the same as with the
plain one. crepe unpack gives the plain folder back. The form is sparse-bitmask of
compressed-tensors, which wrote it up to version 0.14 (docs/pack.md).

Weights keep their type and all their bits, unless --values makes them integers of 8 or 4
bits, with a scale for each row and 64 columns. At 50 % a Linear then takes 0.34 or 0.21
of its size in bfloat16; a dense one takes 0.59 or 0.34. crepe unpack then gives the
weights that the integers stand for. The folder appears whole or not at all.`,
		Example: `  crepe pack ./sparse -o ./packed
  crepe pack ./sparse -o ./packed8 --values int8
  crepe generate ./packed --prompt "Once upon a time"
  crepe unpack ./packed -o ./sparse-again`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			k, err := f.values.integers(c.Flags(), "values")
			if err != nil {
				return err
			}
			return a.pack(c.Context(), args[0], f, k)
		},
	}
	f.declare(c)
	f.values.declare(c.Flags(), "values", "bf16", "what is stored of a weight: bf16 (its own type, whatever that is), int8 or int4")
	complete(c, map[string][]string{"values": valueNames()})
	return c
}

func newUnpack(a *app) *cobra.Command {
	var f packFlags
	c := &cobra.Command{
		Use:   "unpack MODEL -o DIR [flags]",
		Short: "Write the plain folder that a packed one was made from",
		Long: `Write the plain folder that MODEL, a packed folder, was made from. What crepe pack
packed comes back byte for byte, which crepe checks by the hashes that it recorded. A
folder that compressed-tensors wrote as sparse-bitmask is unpacked, too. Of int8 and int4
it writes the weights that the integers stand for, without crepe.json, which describes
others.`,
		Example: `  crepe unpack ./packed -o ./sparse`,
		Args:    argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.unpack(c.Context(), args[0], f)
		},
	}
	f.declare(c)
	complete(c, nil)
	return c
}

func (a *app) pack(ctx context.Context, name string, f packFlags, k tensor.Integers) error {
	return a.repack(ctx, name, f, func(s *session.Session, o pack.Options) (*pack.Result, error) {
		o.Integers = k
		return pack.Folder(ctx, s.Inventory, s.Model, o)
	})
}

func (a *app) unpack(ctx context.Context, name string, f packFlags) error {
	return a.repack(ctx, name, f, func(s *session.Session, o pack.Options) (*pack.Result, error) {
		return pack.Unpack(ctx, s.Inventory, o)
	})
}

// repack opens a model, writes a folder of it by write, and says what became of it.
func (a *app) repack(ctx context.Context, name string, f packFlags, write func(*session.Session, pack.Options) (*pack.Result, error)) error {
	meter := a.startMeter()
	defer meter.finish()
	s, err := a.open(ctx, name, a.options(session.Auto, 0))
	if err != nil {
		return err
	}
	defer s.Close()
	res, err := write(s, pack.Options{Output: f.output, Overwrite: f.overwrite, Progress: meter.update})
	if err != nil {
		return err
	}
	meter.finish()
	if f.asJSON {
		return json.NewEncoder(a.stdout).Encode(packing{name, f.output, res})
	}
	w := a.table()
	fmt.Fprintf(w, "model\t%s (%s)\n", label(name), s.Model.Config.Architecture)
	showPacked(w, res)
	fmt.Fprintf(w, "output\t%s/\n", label(f.output))
	return w.Flush()
}

// showPacked prints what is packed and what it takes.
func showPacked(w io.Writer, res *pack.Result) {
	fmt.Fprintf(w, "packed\t%d Linears, %.3f %% of %.4g M weights kept\n",
		res.Linears, 100*float64(res.Kept)/float64(res.Weights), float64(res.Weights)/1e6)
	showTables(w, res.Tables)
	fmt.Fprintf(w, "size\tLinears %s plain, %s packed (%.3f); all tensors %s and %s (%.3f)\n",
		formatBytes(res.Plain), formatBytes(res.Packed), float64(res.Packed)/float64(res.Plain),
		formatBytes(res.AllPlain), formatBytes(res.All), float64(res.All)/float64(res.AllPlain))
}

// showTables says how many of embedding and head, which may be one, are integers.
func showTables(w io.Writer, n int) {
	switch n {
	case 0:
	case 1:
		fmt.Fprintf(w, "\tembedding: int8\n")
	default:
		fmt.Fprintf(w, "\tembedding and head: int8\n")
	}
}

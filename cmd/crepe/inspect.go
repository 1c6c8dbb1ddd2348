package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pack"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/tensor"
)

// inspection is what crepe inspect --json prints.
type inspection struct {
	Model         string           `json:"model"`
	Architecture  string           `json:"architecture"`
	Blocks        int              `json:"blocks"`
	Parameters    int64            `json:"parameters"`              // elements of all tensors stored
	Bytes         int64            `json:"bytes"`                   // of all tensors stored
	Packed        int              `json:"packed"`                  // Linears in packed form, whose plain bytes are not in Bytes
	PackedTables  int              `json:"packed_tables,omitempty"` // embedding and head, as int8
	PackedValues  string           `json:"packed_values,omitempty"` // int8 or int4, if they hold integers
	DTypes        map[string]int64 `json:"dtypes"`                  // elements by type
	Sparsity      float64          `json:"sparsity"`                // over all prunable Linears
	Patterns      map[string]bool  `json:"patterns"`                // does every Linear with zeros hold it
	BlockSparsity []float64        `json:"block_sparsity"`          // of each block's prunable Linears
	Linears       []inspected      `json:"linears"`
	Against       *maskComparison  `json:"against,omitempty"`
	Manifest      *prune.Manifest  `json:"manifest,omitempty"` // crepe.json, without its Linears

	permuted map[string][]prune.Permutation // by Linear, of crepe.json
}

type inspected struct {
	Name     string   `json:"name"`
	Rows     int      `json:"rows"`
	Cols     int      `json:"cols"`
	DType    string   `json:"dtype"`
	Sparsity float64  `json:"sparsity"`
	Patterns []string `json:"patterns"` // those it holds

	// Shares of the weights, beside the other model's Linear; only with --against.
	*maskDifference
}

// maskDifference compares which weights of a Linear are zero in two models. The
// shares of weights that are zero in both, in this one only, in the other only, and
// in neither sum to 1.
type maskDifference struct {
	Equal     float64 `json:"equal"` // zero in both, or in neither
	OnlyThis  float64 `json:"zero_in_this_only"`
	OnlyOther float64 `json:"zero_in_other_only"`
}

// maskComparison sums it up over all Linears.
type maskComparison struct {
	Model string `json:"model"`
	maskDifference
}

// patterns are looked for in every Linear: those that hardware or the
// literature uses, strictest first.
var patterns = []pattern.Pattern{{Keep: 1, Of: 4}, {Keep: 2, Of: 4}, {Keep: 2, Of: 8}, {Keep: 4, Of: 8}, {Keep: 8, Of: 16}}

func newInspect(a *app) *cobra.Command {
	var asJSON bool
	var against string
	c := &cobra.Command{
		Use:   "inspect MODEL [flags]",
		Short: "Show architecture, size and the sparsity of every Linear",
		Long: `Show MODEL's architecture, parameters, data types and size, and for every prunable
Linear the share of zero weights and the N:M patterns that hold, either in the order
of the columns or, marked "permuted", in the order that crepe.json records. crepe
reads all weights and changes nothing.

With --against, compare which weights are zero with another model of the same shapes:
for every Linear, the share of weights that are zero in both or in neither.`,
		Example: `  crepe inspect demo
  crepe inspect ./demo-crepe-50 --json
  crepe inspect ./demo-crepe-50 --against ./demo-wanda-50`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return a.inspect(c.Context(), args[0], against, asJSON) },
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&against, "against", "", "MODEL to compare the zeros with")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on stdout")
	complete(c, nil)
	return c
}

func (a *app) inspect(ctx context.Context, name, against string, asJSON bool) error {
	meter := a.startMeter()
	defer meter.finish()
	o, err := a.open(ctx, name, a.options(session.Auto, 0))
	if err != nil {
		return err
	}
	defer o.Close()
	in := inspection{
		Model: name, Architecture: o.Model.Config.Architecture, Blocks: o.Model.Blocks(),
		DTypes: map[string]int64{}, Patterns: map[string]bool{},
		permuted: map[string][]prune.Permutation{},
	}
	for _, t := range o.Inventory.Tensors() {
		in.Parameters += t.Elements()
		in.Bytes += o.Inventory.Stored(t)
		switch {
		case !o.Inventory.Packed(t):
		case pack.IsTable(t):
			in.PackedTables++
		default:
			in.Packed++
		}
		in.DTypes[t.DType.String()] += t.Elements()
	}
	if k := pack.FormOf(o.Inventory); k != nil && k.Bits > 0 {
		in.PackedValues = fmt.Sprintf("int%d", k.Bits)
	}
	if !hf.IsGGUF(o.Dir) {
		if err := in.readManifest(o.Dir); err != nil {
			return err
		}
	}
	if err := in.measure(ctx, o, meter.update); err != nil {
		return err
	}
	if against != "" {
		if err := a.compareMasks(ctx, &in, o, against); err != nil {
			return fmt.Errorf("--against: %w", err)
		}
	}
	meter.finish()
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(in)
	}
	return a.showInspection(in)
}

// readManifest reads crepe.json, if the folder has one.
func (in *inspection) readManifest(dir string) (err error) {
	in.Manifest, err = prune.ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, l := range in.Manifest.Linears {
		in.permuted[l.Name] = l.Permuted
	}
	in.Manifest.Linears = nil
	return nil
}

// measure reads every Linear.
func (in *inspection) measure(ctx context.Context, o *session.Session, report progress.Func) error {
	bar := report.Start("inspect", int64(o.Model.Blocks()), "blocks")
	zeros, total := 0, 0
	held, sparse := map[string]int{}, 0
	m := o.Model.WithExpertBytes(1) // one expert at a time
	for b := range o.Model.Blocks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		block, err := m.LoadBlock(b)
		if err != nil {
			return err
		}
		blockZeros, blockTotal := zeros, total
		for _, input := range block.Inputs() {
			for _, l := range input.Linears {
				w, err := l.Read()
				if err != nil {
					return err
				}
				z, n := w.Zeros(), l.Rows*l.Cols
				x := inspected{Name: l.Name, Rows: l.Rows, Cols: l.Cols, DType: w.DType.String(), Sparsity: float64(z) / float64(n), Patterns: []string{}}
				for _, p := range patterns {
					switch {
					case mask.HoldsNM(w, p):
						x.Patterns = append(x.Patterns, p.String())
						held[p.String()]++
					case holdsPermuted(w, p, in.permuted[l.Name]):
						x.Patterns = append(x.Patterns, p.String()+permutedMark)
						held[p.String()]++
					}
				}
				if z > 0 {
					sparse++
				}
				zeros += z
				total += n
				in.Linears = append(in.Linears, x)
				l.Unload()
			}
		}
		block.Release()
		in.BlockSparsity = append(in.BlockSparsity, float64(zeros-blockZeros)/float64(total-blockTotal))
		bar.Add(1)
	}
	in.Sparsity = float64(zeros) / float64(total)
	for _, p := range patterns {
		in.Patterns[p.String()] = sparse > 0 && held[p.String()] >= sparse
	}
	return nil
}

// permutedMark follows a pattern that holds in the order of columns that
// crepe.json records.
const permutedMark = " permuted"

// holdsPermuted reports whether w holds p, each part of it in its order.
func holdsPermuted(w *tensor.Weight, p pattern.Pattern, parts []prune.Permutation) bool {
	rows := 0
	for _, part := range parts {
		if !part.Within(w.Rows) {
			return false
		}
		own := part.Take(w)
		if !mask.HoldsNMIn(own, p, part.Order) {
			return false
		}
		rows += own.Rows
	}
	return rows == w.Rows
}

// programOf is the program that made m, as far as m says.
func programOf(m *prune.Manifest) string {
	if m.Program == nil {
		return m.Crepe
	}
	return m.Program.Short()
}

func (a *app) showInspection(in inspection) error {
	w := a.table() // crepe.json may be anybody's
	fmt.Fprintf(w, "model\t%s (%s, %d blocks)\n", label(in.Model), in.Architecture, in.Blocks)
	var types []string
	for t, n := range in.DTypes {
		types = append(types, fmt.Sprintf("%s %.4g M", t, float64(n)/1e6))
	}
	slices.Sort(types)
	fmt.Fprintf(w, "parameters\t%.4g M (%s), %s\n", float64(in.Parameters)/1e6, strings.Join(types, ", "), formatBytes(in.Bytes))
	if in.Packed > 0 {
		what := "kept weights"
		if in.PackedValues != "" {
			what += " as " + in.PackedValues
		}
		fmt.Fprintf(w, "packed\t%d Linears: bitmap and %s\n", in.Packed, what)
		showTables(w, in.PackedTables)
	}
	if m := in.Manifest; m != nil {
		fmt.Fprintf(w, "pruned by\tcrepe %s, %s %s\n", programOf(m), m.Recipe.Method, amount(m.Recipe))
		fmt.Fprintf(w, "computed by\t%s\n", cmp.Or(m.Engine, m.Level+", "+m.Compute))
		if m.Dense != nil && m.Pruned != nil {
			fmt.Fprintf(w, "perplexity\tdense %s, pruned %s  (%s, %d windows of %d tokens, %s)\n",
				formatPerplexity(m.Dense), formatPerplexity(m.Pruned), m.Recipe.Eval.Source, m.Dense.Windows, m.Dense.SeqLen, m.Compute)
		}
	}
	fmt.Fprintf(w, "sparsity\t%.3f %% of all prunable weights\n", 100*in.Sparsity)
	if c := in.Against; c != nil {
		fmt.Fprintf(w, "against\t%.3f %% of the weights are zero in both or in neither; %.3f %% are zero only here, %.3f %% only in %s\n",
			100*c.Equal, 100*c.OnlyThis, 100*c.OnlyOther, label(c.Model))
	}
	fmt.Fprintln(w)
	if in.Manifest != nil && in.Manifest.Allocation != nil {
		a := in.Manifest.Allocation
		fmt.Fprintf(w, "block\t%s\tallocated\tzeros\n", a.Method)
		for i, b := range in.BlockSparsity {
			if i < len(a.Blocks) {
				fmt.Fprintf(w, "%d\t%.4g\t%.3f %%\t%.3f %%\n", i, a.Blocks[i].Measure, 100*a.Blocks[i].Sparsity, 100*b)
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "linear\tout × in\tdtype\tzeros\t")
	if in.Against != nil {
		fmt.Fprint(w, "equal\t")
	}
	fmt.Fprintln(w, "holds")
	for _, l := range in.Linears {
		equal := ""
		if l.maskDifference != nil {
			equal = fmt.Sprintf("%.3f %%\t", 100*l.Equal)
		}
		fmt.Fprintf(w, "%s\t%d × %d\t%s\t%.3f %%\t%s%s\n", l.Name, l.Rows, l.Cols, l.DType, 100*l.Sparsity, equal, strings.Join(l.Patterns, " "))
	}
	return w.Flush()
}

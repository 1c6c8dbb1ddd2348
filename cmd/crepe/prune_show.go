package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/rotate"
	"github.com/crepe-llm/crepe/rotate/rotated"
	"github.com/crepe-llm/crepe/session"
)

// announce prints what the run is going to do.
func (a *app) announce(o *session.Session, r recipe.Recipe, p *prune.Plan) {
	a.note("%s: %s, %d blocks, %s of weights; %s, %s, %s",
		o.Name, o.Model.Config.Architecture, o.Model.Blocks(), formatBytes(o.Inventory.WeightBytes()), r.Method, amount(r), o.Model.Engine().Compute())
	for _, l := range p.LeftOut() {
		a.note("skipped: %s (%s)", l.Path, l.Reason)
	}
	if p.Memory.Experts > 0 {
		a.note("%s of each block's experts stay in memory, the others are read for each sequence: the memory budget is %s",
			formatBytes(p.Memory.Experts), formatBytes(p.Memory.Budget))
	}
	switch d := p.Memory.Device; {
	case p.Memory.Spill:
		a.note("hidden states (%s) are kept in a file: the memory budget is %s", formatBytes(p.Memory.Hidden), formatBytes(p.Memory.Budget))
	case d != nil && p.Memory.Hidden > 0:
		a.note("hidden states (%s) are kept in the program's memory: of the device's %s may be taken", formatBytes(p.Memory.Hidden), formatBytes(d.Budget))
	}
}

// noteReplaced names what --overwrite deletes; --resume keeps an interrupted run.
func (a *app) noteReplaced(output string, resume bool) error {
	names, partial, err := checkpoint.Replaced(output)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		a.note("--overwrite deletes %s with %s", output, strings.Join(names, ", "))
	}
	if partial != "" && !resume {
		a.note("--overwrite deletes the interrupted run in %s", partial)
	}
	return nil
}

func amount(r recipe.Recipe) string {
	if r.Pattern != "" {
		return r.Pattern
	}
	return r.Sparsity
}

// dryRun is what prune --dry-run --json prints.
type dryRun struct {
	*prune.Plan
	Output     string  `json:"output"`
	Free       int64   `json:"free_bytes"` // on the output's disk; 0 if unknown
	Seconds    float64 `json:"seconds"`    // estimated
	MemoryPeak int64   `json:"memory_peak_bytes"`
}

func (a *app) showPlan(p *prune.Plan, o *session.Session, opt prune.Options, asJSON bool) error {
	free, err := checkpoint.FreeBytes(filepath.Dir(opt.Output))
	if err != nil {
		free = 0
	}
	seconds, err := p.EstimateSeconds(o.Model.Engine())
	if err != nil {
		return err
	}
	d := dryRun{Plan: p, Output: opt.Output, Free: free, Seconds: seconds, MemoryPeak: p.Memory.Total()}
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(d)
	}
	w := a.table()
	fmt.Fprintln(w, "linear\tout × in\tpruned")
	weights, pruned := 0, 0
	for _, l := range p.Linears {
		how := fmt.Sprintf("%.2f %%", 100*float64(l.Pruned)/float64(l.Rows*l.Cols))
		if l.Skip {
			how = "skipped"
		}
		fmt.Fprintf(w, "%s\t%d × %d\t%s\n", l.Name, l.Rows, l.Cols, how)
		weights += l.Rows * l.Cols
		pruned += l.Pruned
	}
	fmt.Fprintf(w, "\nweights\t%d of %d would be zero\n", pruned, weights)
	if opt.Recipe.Allocate != "" {
		fmt.Fprintf(w, "allocation\t%s: above is the mean; each block's share is found by the run\n", opt.Recipe.Allocate)
	}
	m := p.Memory
	fmt.Fprintf(w, "memory\tabout %s of %s: block %s, the next %s, rotation %s, Gram matrices %s, refinement %s, scores %s, measures %s, activations %s, hidden states %s%s\n",
		formatBytes(m.Total()), formatBytes(m.Budget), formatBytes(m.Block), formatBytes(m.Ahead), formatBytes(m.Rotate), formatBytes(m.Gram), formatBytes(m.Refine), formatBytes(m.Scores), formatBytes(m.Samples+m.Measure),
		formatBytes(m.Scratch), formatBytes(m.Hidden), map[bool]string{true: " in a file"}[m.Spill])
	if d := m.Device; d != nil {
		kept := ""
		if m.Hidden > 0 {
			kept = " of one sequence, the others are in the memory above"
			if m.Spill {
				kept = " of one sequence, the others are in a file"
			}
		}
		fmt.Fprintf(w, "device memory\tabout %s of %s: block %s, the next %s, statistics %s, activations %s, hidden states %s%s\n",
			formatBytes(d.Total()), formatBytes(d.Budget), formatBytes(d.Block), formatBytes(d.Ahead), formatBytes(d.Stats), formatBytes(d.Scratch), formatBytes(d.Hidden), kept)
	}
	output, extra := formatBytes(p.Disk.Output), p.Disk.Extra
	if p.Disk.Packed > 0 {
		output, extra = "at most "+formatBytes(p.Disk.Packed), extra+p.Disk.Output
	}
	fmt.Fprintf(w, "disk\t%s for %s, up to %s more while it runs; %s are free\n", output, label(opt.Output), formatBytes(extra), formatBytes(free))
	fmt.Fprintf(w, "time\tabout %s\n", time.Duration(d.Seconds*float64(time.Second)).Round(time.Second))
	return w.Flush()
}

// showReport prints the result for a person.
func (a *app) showReport(rep *prune.Report, o *session.Session) error {
	w := a.table()
	weights := 0
	for _, l := range rep.Linears {
		weights += l.Rows * l.Cols
	}
	fmt.Fprintf(w, "model\t%s (%s)\n", label(rep.Model), o.Model.Config.Architecture)
	pattern := ""
	if rep.Pattern != "unstructured" {
		pattern = ", " + rep.Pattern
	}
	fmt.Fprintf(w, "method\t%s%s\n", rep.Method, pattern)
	if r := rep.Rotation; r != nil {
		fmt.Fprintf(w, "rotated\t%s\n", formatRotation(r))
	}
	if n, left, ok := rep.Refined(); ok {
		fmt.Fprintf(w, "refined\t%s: %d exchanges, %.1f %% of the error that it lowers left\n", rep.Refine, n, 100*left)
	}
	if left, ok := rep.Rebuilt(); ok {
		fmt.Fprintf(w, "rebuilt\t%s: %.1f %% of the branches' errors left, in the mean\n", rep.Rebuild, 100*left)
	}
	fmt.Fprintf(w, "sparsity\t%.3f %% of %d Linears with %.1f M weights (asked: %.3f %%)\n",
		100*rep.Sparsity.Measured, len(rep.Linears), float64(weights)/1e6, 100*rep.Sparsity.Target)
	if n, moved, gain := rep.Permuted(); n > 0 {
		fmt.Fprintf(w, "permuted\t%d of %d: %.2f %% more of the scores kept\n", moved, n, 100*gain)
	}
	if a := rep.Allocation; a != nil {
		fmt.Fprintf(w, "allocation\t%s: %s\n", a.Method, formatShares(a))
	}
	if rep.Dense != nil {
		fmt.Fprintf(w, "perplexity\tdense %s, pruned %s  (%d windows of %d tokens, %s)\n",
			formatPerplexity(rep.Dense), formatPerplexity(rep.Pruned), rep.Dense.Windows, rep.Dense.SeqLen, o.Model.Engine().Compute())
	}
	if d := rep.Diverged; d != nil {
		fmt.Fprintf(w, "predictions\tKL %.4f nats from the dense model's, the same top token at %.1f %% of %d positions\n", d.KL.Mean, 100*d.SameTop, d.Positions)
	}
	if rep.Packed != nil {
		showPacked(w, rep.Packed)
	}
	s := rep.Seconds
	allocated, optional := "", ""
	if rep.Rotation != nil {
		allocated = fmt.Sprintf(", rotate %.1f", s.Rotate)
	}
	if rep.Allocation != nil {
		allocated += fmt.Sprintf(", allocate %.1f", s.Allocate)
	}
	if rep.Refine != "" {
		optional += fmt.Sprintf(", refine %.2f", s.Refine)
	}
	if s.Permute > 0 {
		optional += fmt.Sprintf(", permute %.2f", s.Permute)
	}
	if s.Update > 0 {
		optional += fmt.Sprintf(", update %.2f", s.Update)
	}
	if s.Rebuild > 0 {
		optional += fmt.Sprintf(", rebuild %.1f", s.Rebuild)
	}
	fmt.Fprintf(w, "time\t%.1f s: load %.1f%s, calibrate %.1f, score %.2f, select %.2f%s, measure %.2f, write %.1f, eval %.1f\n",
		s.Total, s.Load, allocated, s.Calibrate, s.Score, s.Select, optional, s.Measure, s.Write, s.Eval)
	if rep.PeakRSS > 0 {
		fmt.Fprintf(w, "memory\t%s at the peak\n", formatBytes(rep.PeakRSS))
	}
	finished := ""
	if rep.Finished {
		finished = "  (an earlier run has finished it)"
	}
	fmt.Fprintf(w, "output\t%s%s\nrecipe\t%s\n", label(strings.TrimSuffix(rep.Output, "/")+"/"), finished, label(rep.Recipe))
	return w.Flush()
}

// formatRotation says how far what the rotations make small fell.
func formatRotation(r *rotated.Result) string {
	var parts []string
	for _, p := range []struct {
		name string
		e    *rotated.Measured
	}{{"residual stream", r.Stream}, {"heads' values", r.Values}} {
		if p.e != nil {
			how := fmt.Sprintf("entropy %.3f to %.3f nats", p.e.Before, p.e.After)
			if r.For == rotate.Loss {
				how = fmt.Sprintf("%.1f %% of the loss left", 100*p.e.After)
			}
			parts = append(parts, fmt.Sprintf("%s: %s in %d steps", p.name, how, p.e.Steps))
		}
	}
	return strings.Join(parts, "; ")
}

// formatShares returns the blocks' shares in percent, one after the other.
func formatShares(a *prune.Allocation) string {
	var shares []string
	for _, b := range a.Blocks {
		shares = append(shares, fmt.Sprintf("%.1f", 100*b.Sparsity))
	}
	return strings.Join(shares, " ") + " %"
}

func formatPerplexity(r *eval.Result) string { return perplexityText(*r, 2) }

// perplexityText is a perplexity with so many decimals; of one beyond all numbers,
// what it is the exponential of.
func perplexityText(r eval.Result, decimals int) string {
	text := r.Perplexity.Text(decimals)
	if r.Perplexity.Infinite() && !r.NLL.Infinite() {
		text += fmt.Sprintf(" (%.6g nats per token)", float64(r.NLL))
	}
	return text
}

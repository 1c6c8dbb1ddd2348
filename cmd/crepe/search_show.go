package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/pho"
)

// searchReport is what crepe search --json prints.
type searchReport struct {
	Best         candidateReport   `json:"best"`
	Dense        eval.Number       `json:"dense"`     // perplexity of the dense model on the same windows
	Objective    string            `json:"objective"` // that was followed
	Check        *pho.ProxyCheck   `json:"proxy_check,omitempty"`
	Trials       int               `json:"trials"`   // candidates rated
	Verified     int               `json:"verified"` // candidates screened or pruned in full
	InFull       int               `json:"in_full"`  // of them, pruned in full
	Candidates   []candidateReport `json:"candidates"`
	Verification string            `json:"verification"` // the text, and what it is
	Windows      int               `json:"windows"`
	Compute      string            `json:"compute"`
	Seconds      float64           `json:"seconds"`
	Study        string            `json:"study"`
	Recipe       string            `json:"recipe"`
	Output       string            `json:"output,omitempty"`
}

// candidateReport is a candidate as it was asked for, and scaled to a sum of 1:
// the masks are the same.
type candidateReport struct {
	pho.Candidate
	Normalized normalized `json:"normalized"`
}

type normalized struct {
	Alpha float64 `json:"alpha"`
	Beta  float64 `json:"beta"`
	Gamma float64 `json:"gamma"`
}

func newCandidateReport(c pho.Candidate) candidateReport {
	n := c.Coefficients.Normalized()
	return candidateReport{c, normalized{n.Alpha, n.Beta, n.Gamma}}
}

func (r *searchReport) fill(res *pho.Result, c *candidates) {
	r.Best, r.Dense, r.Objective, r.Check, r.Trials, r.Verified = newCandidateReport(res.Best), res.Dense, res.Objective, res.Check, res.Trials, len(res.Verified)
	for _, v := range res.Verified {
		r.Candidates = append(r.Candidates, newCandidateReport(v))
	}
	r.InFull = inFull(res.Verified)
	r.Verification, r.Windows, r.Compute = c.opt.Verify.Source, len(c.opt.Verify.Tokens), c.Model.Engine().Compute().String()
}

// showSearch prints the result for a person.
func (a *app) showSearch(rep searchReport) error {
	w := a.table()
	fmt.Fprintln(w, candidateHead)
	for _, c := range rep.Candidates {
		fmt.Fprintln(w, candidateRow(c.Candidate))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	check := ""
	if c := rep.Check; c != nil && c.Correlation != nil {
		check = fmt.Sprintf("proxy       %s: Spearman's ρ %+.2f with perplexity over %d candidates\n", c.Proxy, c.Rho, c.Candidates)
	}
	_, err := fmt.Fprintf(a.text(), "\nbest        %s, dense %s  (%s, %d windows, %s)\nobjective   %s\n%stime        %.1f s, %d candidates rated, %d verified, %d of them in full\nrecipe      %s\n",
		rep.Best.Perplexity.Text(4), rep.Dense.Text(4), rep.Verification, rep.Windows, rep.Compute, rep.Objective, check, rep.Seconds, rep.Trials, rep.Verified, rep.InFull, label(rep.Recipe))
	if err == nil && rep.Output != "" {
		_, err = fmt.Fprintf(a.text(), "output      %s/\n", label(strings.TrimSuffix(rep.Output, "/")))
	}
	return err
}

// candidateHead is the head of candidateRow's columns.
const candidateHead = "perplexity\ttried\tα\tβ\tγ\tδ\tkernel\tpower\tin\tkinds\trating\t"

// candidateRow is c as a line of a table. What one was tried at compares with what others
// were on as many windows alone.
func candidateRow(c pho.Candidate) string {
	n := c.Coefficients.Normalized()
	perplexity, tried, notes := "–", "–", []string(nil)
	if c.Name != "" {
		notes = append(notes, c.Name)
	}
	if c.Perplexity > 0 {
		perplexity = c.Perplexity.Text(4)
	}
	if c.Screened != nil {
		tried = c.Screened.Perplexity.Text(4)
		if c.GivenUp {
			notes = append(notes, fmt.Sprintf("given up after %d windows, chance %.1g", c.Screened.Windows, c.Screened.Chance))
		} else if c.Perplexity == 0 {
			notes = append(notes, fmt.Sprintf("on %d windows", c.Screened.Windows))
		}
	}
	in := cmp.Or(c.Compare, "matrix")
	return fmt.Sprintf("%s\t%s\t%.4f\t%.4f\t%.4f\t%.4g\t%d\t%.4g\t%s\t%d\t%.5g\t%s", perplexity, tried, n.Alpha, n.Beta, n.Gamma, n.Delta, c.Kernel, n.Power, in, len(c.Kinds), c.Rating, strings.Join(notes, ", "))
}

// inFull returns how many of c were pruned in full.
func inFull(c []pho.Candidate) int {
	n := 0
	for _, v := range c {
		if v.Perplexity > 0 {
			n++
		}
	}
	return n
}

// board shows the leaders of a search: on a terminal a table in its place, in a
// log a line for each measurement.
type board struct {
	w     io.Writer
	meter *meter
	lines int       // of the table on the screen
	drawn time.Time // when
}

const (
	boardRows  = 5
	boardEvery = 100 * time.Millisecond // on a terminal, in stage 1
)

func (a *app) startBoard(m *meter) *board {
	a.board = &board{w: a.stderr, meter: m}
	return a.board
}

// leaders takes the candidates of a stage, the best first.
func (b *board) leaders(stage int, c []pho.Candidate) {
	if !b.meter.live {
		if stage == 2 {
			best, how := c[0].Perplexity, "perplexity"
			if best == 0 {
				best, how = c[0].Screened.Perplexity, "tried at"
			}
			fmt.Fprintf(b.w, "verified %d, %d in full; best: %s %s, %s\n", len(c), inFull(c), how, best.Text(4), c[0].Coefficients.Normalized())
		}
		return
	}
	if stage == 1 && time.Since(b.drawn) < boardEvery {
		return
	}
	b.drawn = time.Now()
	b.meter.clearLine()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, candidateHead)
	for _, c := range c[:min(boardRows, len(c))] {
		fmt.Fprintln(w, candidateRow(c))
	}
	_ = w.Flush() // to memory
	if b.lines > 0 {
		fmt.Fprintf(b.w, "\x1b[%dA\x1b[J", b.lines) // up, and clear what is below
	}
	fmt.Fprint(b.w, printable(text.String()))
	b.lines = strings.Count(text.String(), "\n")
}

// leave lets the table stand where it is: other lines follow.
func (b *board) leave() {
	if b != nil {
		b.lines = 0
	}
}

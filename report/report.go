// Package report shows saved results to people: as pages with charts, each with the
// numbers behind it as a table. It reads what runs, searches, studies, grids and
// measurements have saved and measures nothing of its own.
//
// Load reads files into Items, Build arranges Items in a Document of plain values,
// and Write makes one HTML file of that, which needs no network. Package report/live
// serves the same Document while results come in.
package report

import (
	"math"
	"time"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/provenance"
)

// Document is all that a page shows. Its JSON is what the page's script reads.
type Document struct {
	Title    string    `json:"title"`
	Made     time.Time `json:"made"`
	Crepe    string    `json:"crepe"` // the program that made it
	Sections []Section `json:"sections"`
}

// Section is a part of a page with its heading.
type Section struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Lead    string   `json:"lead"` // what to see in it, for somebody who does not know
	Figures []Figure `json:"figures"`
}

// Figure is a chart, a table of its numbers, or both. Several Views, of which the
// reader chooses one, have the same columns.
type Figure struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Of      string   `json:"of,omitempty"` // the Item it is of
	Columns []Column `json:"columns"`
	Choice  string   `json:"choice,omitempty"` // what a View is: "Linear"
	Views   []View   `json:"views"`
	Chart   *Chart   `json:"chart,omitempty"`
	Texts   bool     `json:"texts,omitempty"` // the cells are long texts, shown side by side
}

// Column heads a column of a table.
type Column struct {
	Name   string `json:"name"`
	Unit   string `json:"unit,omitempty"`
	Hint   string `json:"hint,omitempty"`
	Digits int    `json:"digits,omitempty"` // significant digits that a table shows; 0: a text, or all of them
	Share  bool   `json:"share,omitempty"`  // of 1, shown in percent
	Best   string `json:"best,omitempty"`   // "low" or "high": the best value is marked
}

// View is a set of rows. A cell is a string, a number, or nil for none.
type View struct {
	Label string  `json:"label,omitempty"`
	Rows  [][]any `json:"rows"`
	Note  string  `json:"note,omitempty"`
	Marks []Mark  `json:"marks,omitempty"`
}

// Mark is a value to be pointed at on a chart's x axis, or on the y axis.
type Mark struct {
	Label string  `json:"label"`
	Value float64 `json:"value"`
	OnY   bool    `json:"on_y,omitempty"`
}

// Chart says how rows are drawn: which columns are what, by their number; -1 for
// none.
type Chart struct {
	Kind  string `json:"kind"` // heatmap, histogram, lines, area, bars, scatter, triangle
	X     int    `json:"x"`
	Y     []int  `json:"y"`               // of a heatmap: the row of the cell
	Value int    `json:"value"`           // of a heatmap or triangle: what the colour says
	Error int    `json:"error"`           // of Y[0]
	Label int    `json:"label"`           // of a scatter: what is written beside its points
	Group int    `json:"group"`           // a series for each of its values
	Until int    `json:"until"`           // of a histogram: the upper edge of a bin; X is the lower
	Stack bool   `json:"stack,omitempty"` // bars of several Y are parts of one
	LogX  bool   `json:"log_x,omitempty"`
	LogY  bool   `json:"log_y,omitempty"`
	Scale string `json:"scale,omitempty"` // charts with equal ones share the range of their colours
}

// newChart returns a chart of a kind without columns.
func newChart(kind string) *Chart {
	return &Chart{Kind: kind, X: -1, Value: -1, Error: -1, Label: -1, Group: -1, Until: -1}
}

// newDocument returns an empty document.
func newDocument(title string) *Document {
	return &Document{Sections: []Section{}, Title: title, Made: time.Now().UTC().Truncate(time.Second), Crepe: "crepe " + provenance.Version + revision()}
}

func revision() string {
	if r := provenance.Revision(); r != "" {
		return " (" + r + ")"
	}
	return ""
}

// number is a cell for v: nil for what JSON has no number for.
func number(v float64) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return v
}

// optional is a cell for *v, nil for nil.
func optional(v *float64) any {
	if v == nil {
		return nil
	}
	return number(*v)
}

// perplexity is a cell for one that may be infinite.
func perplexity(v eval.Number) any {
	if v.Infinite() {
		return "infinite"
	}
	return float64(v)
}

// positive is a cell for v where 0 says that it is not known.
func positive(v float64) any {
	if v > 0 {
		return number(v)
	}
	return nil
}

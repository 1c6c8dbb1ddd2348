package main

import (
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// printable replaces characters that would do something to a terminal, or turn round
// what it shows: a model may write any, and names of files, models and tensors may
// have any.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r != '\n' && unicode.IsControl(r), r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
			return '\uFFFD'
		}
		return r
	}, s)
}

// label is the name of a folder, a file or a model as it stands in a line or a table:
// printable, and without the newlines that it may have, which would begin lines of their
// own.
func label(name string) string { return printable(strings.ReplaceAll(name, "\n", "\uFFFD")) }

// text is where results go that a person reads, printable.
func (a *app) text() io.Writer { return printableWriter{a.stdout} }

// table is text in columns.
func (a *app) table() *tabwriter.Writer { return tabwriter.NewWriter(a.text(), 0, 0, 2, ' ', 0) }

// printableWriter writes printable text; a character comes in one Write.
type printableWriter struct{ io.Writer }

func (w printableWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, printable(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

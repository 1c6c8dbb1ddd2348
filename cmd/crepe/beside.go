package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rivo/uniseg"
	"golang.org/x/term"
)

// width is that of the terminal w, or what a page of text has.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return 100
}

// narrow is the least width of a column that can be read.
const narrow = 24

// showBeside prints two continuations side by side, or one after the other
// where the page is too narrow.
func showBeside(out io.Writer, page int, rep generateReport) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "%s\n\n", printable(rep.Prompt))
	left, right := &rep.continuation, rep.Against
	if column := (page - 3) / 2; column >= narrow {
		a, b := wrap(left.Text, column), wrap(right.Text, column)
		row := func(l, between, r string) {
			fmt.Fprintln(w, strings.TrimRight(pad(l, column)+between+r, " "))
		}
		row(cut(label(left.Model), column), " │ ", cut(label(right.Model), column))
		row(strings.Repeat("─", column), "─┼─", strings.Repeat("─", column))
		for i := range max(len(a), len(b)) {
			row(at(a, i), " │ ", at(b, i))
		}
	} else {
		for _, c := range []*continuation{left, right} {
			fmt.Fprintf(w, "%s:\n%s\n\n", label(c.Model), strings.Join(wrap(c.Text, max(page, narrow)), "\n"))
		}
	}
	same := fmt.Sprintf("the first %d tokens are the same", *rep.Same)
	if *rep.Same == max(len(left.IDs), len(right.IDs)) {
		same = fmt.Sprintf("all %d tokens are the same", *rep.Same)
	}
	fmt.Fprintf(w, "\n(%s; %d and %d in all, %s)\n", same, len(left.IDs), len(right.IDs), rep.Compute)
	return w.Flush()
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// pad fills s with spaces to so many cells.
func pad(s string, cells int) string {
	return s + strings.Repeat(" ", max(0, cells-uniseg.StringWidth(s)))
}

// cut leaves the end of s where it is too long: names differ there.
func cut(s string, cells int) string {
	if uniseg.StringWidth(s) <= cells {
		return s
	}
	for uniseg.StringWidth(s) >= cells {
		_, s, _, _ = uniseg.FirstGraphemeClusterInString(s, -1)
	}
	return "…" + s
}

// wrap breaks text into lines of at most so many cells, where Unicode allows a
// line to end, or anywhere in what is longer than a line.
func wrap(text string, cells int) []string {
	var lines []string
	line := ""
	end := func() {
		lines = append(lines, strings.TrimRight(line, " "))
		line = ""
	}
	rest, state := strings.TrimSpace(printable(text)), -1
	for rest != "" {
		var segment string
		var must bool
		segment, rest, must, state = uniseg.FirstLineSegmentInString(rest, state)
		must = must && strings.HasSuffix(segment, "\n") // the text's end is no line's
		segment = strings.TrimSuffix(segment, "\n")
		if line != "" && uniseg.StringWidth(line)+uniseg.StringWidth(strings.TrimRight(segment, " ")) > cells {
			end()
		}
		for uniseg.StringWidth(strings.TrimRight(segment, " ")) > cells {
			var part, cluster string
			for clusters, s := segment, -1; ; segment = clusters {
				cluster, clusters, _, s = uniseg.FirstGraphemeClusterInString(clusters, s)
				if part != "" && uniseg.StringWidth(part+cluster) > cells {
					break
				}
				part += cluster
			}
			line = part
			end()
		}
		line += segment
		if must {
			end()
		}
	}
	if line != "" {
		end()
	}
	return lines
}

package parquet

import (
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Bounds on a row. A few bytes can stand for any number of elements.
const (
	maxRow      = 16 << 20 // bytes of strings
	maxElements = 1 << 20  // elements of lists
)

// Rows calls yield with the named top-level columns of each row, in order: nil,
// int64, string, []any for a list, map[string]any for a struct. Strings are
// UTF-8. An error of yield ends the reading and is returned as it is.
func Rows(r io.ReaderAt, size int64, columns []string, yield func(row map[string]any) error) error {
	footer, err := readFooter(r, size)
	if err != nil {
		return err
	}
	schema, groups, err := parseFooter(footer, columns)
	if err == nil {
		err = checkChunks(groups, size)
	}
	if err != nil {
		return err
	}
	f := newFile(r, size)
	var tops []*node
	for _, name := range columns {
		n, err := find(schema, name)
		if err != nil {
			return err
		}
		tops = append(tops, n)
	}
	row := 0
	for i, g := range groups {
		if g.rows == 0 {
			continue
		}
		for _, n := range tops {
			if err := g.open(f, n); err != nil {
				return fmt.Errorf("row group %d: %w", i, err)
			}
		}
		err := eachRow(tops, g.rows, &row, yield)
		for _, n := range tops {
			n.close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// eachRow reads the rows of one row group; row is the number of the last.
func eachRow(tops []*node, rows int64, row *int, yield func(map[string]any) error) error {
	for range rows {
		*row++
		values, a := make(map[string]any, len(tops)), assembler{}
		for _, n := range tops {
			v, err := a.field(n)
			if err == nil && !n.all(func(c *column) bool { return c.rep == 0 }) {
				err = errBadLevels
			}
			if err != nil {
				return fmt.Errorf("row %d: column %s: %w", *row, n.name, err)
			}
			values[n.name] = v
		}
		if err := yield(values); err != nil {
			return err
		}
	}
	for _, n := range tops {
		if !n.all(func(c *column) bool { return c.done }) {
			return fmt.Errorf("column %s: more values than the %d rows", n.name, rows)
		}
	}
	return nil
}

var errBadLevels = errors.New("its levels make no row")

// all reports whether f holds for the columns of all leaves below n.
func (n *node) all(f func(c *column) bool) bool {
	for _, l := range n.leaves {
		if !f(l.column) {
			return false
		}
	}
	return true
}

// agree returns what f says of all columns below n; they must agree.
func (n *node) agree(f func(c *column) bool) (bool, error) {
	first := f(n.leaves[0].column)
	if !n.all(func(c *column) bool { return f(c) == first }) {
		return false, errBadLevels
	}
	return first, nil
}

// skip goes over one entry of each column below n: nothing is there.
func (n *node) skip() error {
	for _, l := range n.leaves {
		if err := l.column.next(); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) close() {
	for _, l := range n.leaves {
		l.column.close()
	}
}

// assembler puts a row together out of its columns.
//
// A column is a sequence of entries with two levels. The definition level says
// down to which of the optional and repeated nodes above the value there is
// something; the repetition level, which of the repeated ones has another
// element. (Dremel: Melnik et al. 2010, section 4.)
type assembler struct{ bytes, elements int }

// field reads what is at n, or all of it where n is repeated.
func (a *assembler) field(n *node) (any, error) {
	if n.repetition == repeated {
		return a.elementsOf(n, a.present)
	}
	there, err := n.agree(func(c *column) bool { return !c.done && c.def >= n.def })
	if err != nil {
		return nil, err
	}
	if !there {
		if n.repetition == required {
			return nil, errBadLevels
		}
		return nil, n.skip()
	}
	return a.present(n)
}

// present reads what is at n, which is there.
func (a *assembler) present(n *node) (any, error) {
	switch {
	case n.typ != group:
		return a.leaf(n)
	case n.list:
		// The repeated group has the element as its only field, in files of
		// old the repeated node is the element.
		middle := n.children[0]
		if len(middle.children) == 1 && middle.name != "array" && middle.name != n.name+"_tuple" {
			return a.elementsOf(middle, func(m *node) (any, error) { return a.field(m.children[0]) })
		}
		return a.elementsOf(middle, a.present)
	}
	fields := make(map[string]any, len(n.children))
	for _, c := range n.children {
		v, err := a.field(c)
		if err != nil {
			return nil, err
		}
		fields[c.name] = v
	}
	return fields, nil
}

// elementsOf reads all elements of the repeated node n.
func (a *assembler) elementsOf(n *node, element func(*node) (any, error)) (any, error) {
	list := []any{}
	more, err := n.agree(func(c *column) bool { return !c.done && c.def >= n.def })
	if err == nil && !more {
		return list, n.skip()
	}
	for more && err == nil {
		if a.elements++; a.elements > maxElements {
			return nil, fmt.Errorf("more than %d elements in a row", maxElements)
		}
		var v any
		if v, err = element(n); err != nil {
			break
		}
		list = append(list, v)
		more, err = n.agree(func(c *column) bool { return c.rep == n.rep })
	}
	return list, err
}

func (a *assembler) leaf(n *node) (any, error) {
	c := n.column
	if c.def != n.def || c.done {
		return nil, errBadLevels
	}
	if n.typ != byteArray {
		v := c.value.number
		return v, c.next()
	}
	if a.bytes += len(c.value.bytes); a.bytes > maxRow {
		return nil, fmt.Errorf("more than %d bytes in a row", maxRow)
	}
	if !utf8.Valid(c.value.bytes) {
		return nil, errors.New("not UTF-8")
	}
	v := string(c.value.bytes) // before next, which takes the bytes
	return v, c.next()
}

// Strings calls yield with every value of a top-level column of strings, in
// order. The bytes are valid during the call only. An error of yield ends the
// reading and is returned as it is.
func Strings(r io.ReaderAt, size int64, name string, yield func(value []byte) error) error {
	footer, err := readFooter(r, size)
	if err != nil {
		return err
	}
	schema, groups, err := parseFooter(footer, []string{name})
	if err == nil {
		err = checkChunks(groups, size)
	}
	if err != nil {
		return err
	}
	f := newFile(r, size)
	n, err := find(schema, name)
	if err != nil {
		return err
	}
	if n.typ != byteArray || n.repetition == repeated {
		return fmt.Errorf("column %s does not hold strings", name)
	}
	row := 0
	for i, g := range groups {
		if g.rows == 0 {
			continue
		}
		if err := g.open(f, n); err != nil {
			return fmt.Errorf("row group %d: %w", i, err)
		}
		for c := n.column; !c.done; {
			row++
			if c.def < n.def {
				return fmt.Errorf("row %d: column %s: null, want a string", row, name)
			}
			if err := yield(c.value.bytes); err != nil {
				return err
			}
			if err := c.next(); err != nil {
				return fmt.Errorf("row group %d: column %s: %w", i, name, err)
			}
		}
		n.close()
	}
	return nil
}

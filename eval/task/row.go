package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/crepe-llm/crepe/internal/pyjson"
)

// row is a row of a dataset by column. It keeps the first error; after one the
// columns read as zero.
type row struct {
	columns map[string]json.RawMessage
	within  string // "choices." in the columns of an object
	err     error
	asked   []string // the columns that were read, in order, also after an error
}

func parseRow(line []byte) (*row, error) {
	r := &row{}
	if len(line) > 0 && line[0] == '[' {
		return nil, errors.New("a JSON array, want one object on each line (JSON Lines)")
	}
	if err := pyjson.Unmarshal(line, &r.columns); err != nil {
		return nil, plain(err)
	}
	if r.columns == nil {
		return nil, errors.New("null, want an object")
	}
	return r, nil
}

// rowOf makes a row of values as package parquet gives them.
func rowOf(values map[string]any) (*row, error) {
	r := &row{columns: make(map[string]json.RawMessage, len(values))}
	for name, v := range values {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false) // messages show it
		if err := e.Encode(v); err != nil {
			return nil, err
		}
		r.columns[name] = bytes.TrimSpace(text.Bytes())
	}
	return r, nil
}

// bytes returns the size of all columns.
func (r *row) bytes() (n int64) {
	for _, raw := range r.columns {
		n += int64(len(raw))
	}
	return n
}

// columns returns the columns that t reads, by letting it read a row that has
// none.
func (t *Task) columns() []string {
	r := &row{}
	t.requests(r)
	t.gold(r)
	slices.Sort(r.asked)
	return slices.Compact(r.asked)
}

// plain says what a JSON value is not without the name of a Go type.
func plain(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s, want an object", wrong.Value)
	}
	return err
}

func (r *row) failf(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// read sets v to a column's value, which must be what is wanted.
func read[T any](r *row, column, want string, v *T) {
	raw, ok := r.columns[column]
	r.asked = append(r.asked, column)
	if r.err != nil {
		return
	}
	if !ok {
		r.failf("no column %s%s", r.within, column)
		return
	}
	if err := json.Unmarshal(raw, v); err != nil || bytes.Equal(raw, []byte("null")) {
		r.failf("column %s%s: %s, want %s", r.within, column, excerpt(raw), want)
	} else if err := pyjson.CheckSurrogates(raw); err != nil {
		r.failf("column %s%s: %w", r.within, column, err)
	}
}

// excerpt returns the beginning of a JSON value.
func excerpt(raw []byte) string {
	const most = 40
	if text := []rune(string(raw)); len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(raw)
}

func (r *row) text(column string) (s string) {
	read(r, column, "a string", &s)
	return s
}

func (r *row) integer(column string) (n int) {
	read(r, column, "an integer", &n)
	return n
}

// number reads an integer, or a string that is one.
func (r *row) number(column string) int {
	if raw := r.columns[column]; len(raw) == 0 || raw[0] != '"' {
		return r.integer(column)
	}
	s := r.text(column)
	n, err := strconv.Atoi(strip(s))
	if err != nil {
		r.failf("column %s%s: %q, want an integer", r.within, column, s)
	}
	return n
}

// texts reads a list of strings. A null in it is no string.
func (r *row) texts(column string) []string {
	var list []*string
	read(r, column, "a list of strings", &list)
	all := make([]string, len(list))
	for i, s := range list {
		if s == nil {
			r.failf("column %s%s: element %d is null, want a string", r.within, column, i)
			return nil
		}
		all[i] = *s
	}
	return all
}

// object reads a column that has columns of its own. Its errors are r's.
func (r *row) object(column string) *object {
	o := &object{row: row{within: column + "."}, parent: r}
	read(r, column, "an object", &o.columns)
	return o
}

// object is a row in a row.
type object struct {
	row
	parent *row
}

func (o *object) texts(column string) []string {
	o.err = o.parent.err
	all := o.row.texts(column)
	o.parent.err = o.err
	return all
}

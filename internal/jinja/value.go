package jinja

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// List is a list, or a tuple. Nothing changes one once it is made.
type List struct {
	Items []any
	tuple bool
}

// NewList returns the list of items.
func NewList(items ...any) *List { return &List{Items: items} }

// Dict is a dict: its keys are in the order in which they were set.
type Dict struct {
	keys   []any
	values []any
	at     map[any]int // by what hashKey returns
}

// NewDict returns an empty Dict.
func NewDict() *Dict { return &Dict{at: map[any]int{}} }

// Set sets the value of a key: None, a bool, a number, a string or a tuple of these.
// It returns d.
func (d *Dict) Set(key, value any) *Dict {
	k := hashKey(key)
	if i, ok := d.at[k]; ok {
		d.values[i] = value
		return d
	}
	d.at[k] = len(d.keys)
	d.keys = append(d.keys, key)
	d.values = append(d.values, value)
	return d
}

// Get returns the value of a key.
func (d *Dict) Get(key any) (any, bool) {
	i, ok := d.at[hashKey(key)]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// tupleKey is a tuple as the key of a map.
type tupleKey string

// hashKey returns what equal keys have in common.
func hashKey(v any) any {
	switch v := v.(type) {
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case float64:
		if i := int64(v); v == math.Trunc(v) && math.Abs(v) < 1<<62 && float64(i) == v {
			return i
		}
	case *List:
		return tupleKey(repr(v))
	}
	return v
}

// isKey reports whether v can be a key.
func isKey(v any) bool {
	switch v := v.(type) {
	case *List:
		return v.tuple && !slices.ContainsFunc(v.Items, func(item any) bool { return !isKey(item) })
	case nil, bool, int64, float64, string:
		return true
	}
	return false
}

// undefined is what a name, or an attribute, that is not there stands for.
type undefined struct{ what string }

// namespace is what namespace() returns: the one thing that can be changed.
type namespace struct{ vars map[string]any }

// function is anything that can be called.
type function struct {
	name string
	call func(r *run, args []any, named map[string]any) any
}

// typeName is Python's name of v's type.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *List:
		if v.tuple {
			return "tuple"
		}
		return "list"
	case *Dict:
		return "dict"
	case undefined:
		return "Undefined"
	case *namespace:
		return "Namespace"
	case *loop:
		return "LoopContext"
	}
	return "function"
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case *List:
		return len(v.Items) > 0
	case *Dict:
		return len(v.keys) > 0
	}
	return true
}

// str is Python's str(v).
func str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case undefined:
		return ""
	}
	return repr(v)
}

// repr is Python's repr(v).
func repr(v any) string {
	var b strings.Builder
	writeRepr(&b, v)
	return b.String()
}

func writeRepr(b *strings.Builder, v any) {
	list := func(open, close string, n int, item func(i int)) {
		b.WriteString(open)
		for i := range n {
			if i > 0 {
				b.WriteString(", ")
			}
			item(i)
		}
		b.WriteString(close)
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if v {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		b.WriteString(formatFloat(v))
	case string:
		quote(b, v)
	case *List:
		open, close := "[", "]"
		if v.tuple {
			open, close = "(", ")"
			if len(v.Items) == 1 {
				close = ",)"
			}
		}
		list(open, close, len(v.Items), func(i int) { writeRepr(b, v.Items[i]) })
	case *Dict:
		list("{", "}", len(v.keys), func(i int) {
			writeRepr(b, v.keys[i])
			b.WriteString(": ")
			writeRepr(b, v.values[i])
		})
	case undefined:
		b.WriteString("Undefined")
	default:
		b.WriteString("<" + typeName(v) + ">")
	}
}

// formatFloat is Python's repr of a float.
func formatFloat(v float64) string {
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// quote writes Python's repr of a string.
func quote(b *strings.Builder, s string) {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	b.WriteByte(q)
	for _, r := range s {
		switch {
		case r == rune(q) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteByte(q)
}

// number returns v as a number: an int64 if isInt, as a bool is.
func number(v any) (i int64, f float64, isInt, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, 1, true, true
		}
		return 0, 0, true, true
	case int64:
		return v, float64(v), true, true
	case float64:
		return 0, v, false, true
	}
	return 0, 0, false, false
}

// size is about how many bytes v takes, without what it holds.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case *List:
		return 16 * len(v.Items)
	case *Dict:
		return 64 * len(v.keys)
	}
	return 0
}

// runes returns s as characters, as its indices count.
func runes(s string) []rune { return []rune(s) }

func runeCount(s string) int { return utf8.RuneCountInString(s) }

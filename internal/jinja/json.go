package jinja

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// tojson is transformers': json.dumps with ensure_ascii off.
func tojson(c *call) any {
	ascii := truth(c.arg(0, "ensure_ascii", false))
	indent, separators, sort := c.arg(1, "indent", nil), c.arg(2, "separators", nil), truth(c.arg(3, "sort_keys", false))
	if !c.r.deep(c.v, 0) {
		return nil
	}
	w := &jsonWriter{c: c, ascii: ascii, sort: sort, item: ", ", key: ": "}
	if indent != nil {
		w.item = ","
		w.indent, w.lines = indent.(string)
		if n, _, isInt, _ := number(indent); isInt {
			w.indent, w.lines = c.r.str(c.r.repeat(" ", n)), true
		}
		if !w.lines {
			return c.r.failf("tojson: indent by a %s", typeName(indent))
		}
	}
	if separators != nil {
		two := c.r.items(separators)
		if len(two) != 2 {
			return c.r.failf("tojson: want two separators")
		}
		w.item, w.key = c.r.str(two[0]), c.r.str(two[1])
	}
	w.write(c.v, 0)
	return w.b.String()
}

type jsonWriter struct {
	c           *call
	b           strings.Builder
	ascii, sort bool
	lines       bool
	indent      string
	item, key   string
}

func (w *jsonWriter) newline(depth int) {
	if w.lines && w.c.r.make(1+depth*len(w.indent)) {
		w.b.WriteString("\n" + strings.Repeat(w.indent, depth))
	}
}

func (w *jsonWriter) write(v any, depth int) {
	if w.c.r.err != nil {
		return
	}
	list := func(open, close string, n int, item func(i int)) {
		w.b.WriteString(open)
		for i := range n {
			if i > 0 {
				w.c.r.write(&w.b, w.item)
			}
			w.newline(depth + 1)
			item(i)
		}
		if n > 0 {
			w.newline(depth)
		}
		w.b.WriteString(close)
	}
	switch v := v.(type) {
	case nil:
		w.b.WriteString("null")
	case bool:
		fmt.Fprint(&w.b, v)
	case int64:
		fmt.Fprint(&w.b, v)
	case float64:
		switch {
		case math.IsNaN(v):
			w.b.WriteString("NaN")
		case math.IsInf(v, 1):
			w.b.WriteString("Infinity")
		case math.IsInf(v, -1):
			w.b.WriteString("-Infinity")
		default:
			w.b.WriteString(formatFloat(v))
		}
	case string:
		w.string(v)
	case *List:
		list("[", "]", len(v.Items), func(i int) { w.write(v.Items[i], depth+1) })
	case *Dict:
		items := pairs(w.c.r, v).Items
		if w.sort {
			items = w.c.sortBy(items, false, func(v any) any { return v.(*List).Items[0] })
		}
		list("{", "}", len(items), func(i int) {
			kv := items[i].(*List).Items
			if k, ok := kv[0].(string); ok {
				w.string(k)
			} else if _, tuple := kv[0].(*List); tuple {
				w.c.r.failf("tojson: a tuple cannot be a key")
			} else {
				w.b.WriteByte('"')
				w.write(kv[0], depth)
				w.b.WriteByte('"')
			}
			w.c.r.write(&w.b, w.key)
			w.write(kv[1], depth+1)
		})
	default:
		w.c.r.failf("tojson: a %s is not JSON", typeName(v))
	}
}

func (w *jsonWriter) string(s string) {
	w.b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			w.b.WriteByte('\\')
			w.b.WriteRune(r)
		case r == '\n':
			w.b.WriteString(`\n`)
		case r == '\r':
			w.b.WriteString(`\r`)
		case r == '\t':
			w.b.WriteString(`\t`)
		case r == '\b':
			w.b.WriteString(`\b`)
		case r == '\f':
			w.b.WriteString(`\f`)
		case r < ' ' || w.ascii && r >= 0x7f && r < 0x10000:
			fmt.Fprintf(&w.b, `\u%04x`, r)
		case w.ascii && r >= 0x10000:
			r -= 0x10000
			fmt.Fprintf(&w.b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			w.b.WriteRune(r)
		}
	}
	w.b.WriteByte('"')
}

// FromJSON returns JSON as values, objects with their keys in order. Integers are
// int64, other numbers float64. What is deeper than 200 levels is an error.
func FromJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("not UTF-8 text")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := decode(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return v, nil
}

func decode(d *json.Decoder, depth int) (any, error) {
	if depth > maxNest {
		return nil, fmt.Errorf("JSON of more than %d levels", maxNest)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		if i, err := t.Int64(); err == nil {
			return i, nil
		}
		return t.Float64()
	case json.Delim:
		list, dict := &List{}, NewDict()
		for d.More() {
			var key any
			if t == '{' {
				if key, err = d.Token(); err != nil {
					return nil, err
				}
			}
			v, err := decode(d, depth+1)
			if err != nil {
				return nil, err
			}
			if t == '{' {
				dict.Set(key, v)
			} else {
				list.Items = append(list.Items, v)
			}
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
		if t == '{' {
			return dict, nil
		}
		return list, nil
	}
	return t, nil // a string, a bool or nil
}

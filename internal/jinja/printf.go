package jinja

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// conversion is one of a format of Python's %: (name), flags, width, precision,
// and what it is.
var conversion = regexp.MustCompile(`%(?:\(([^()]*)\))?([-+ #0]*)([0-9]*)(?:\.([0-9]*))?([a-zA-Z%])`)

const maxWidth = 1000 // of what a conversion fills up to

// printf is Python's format % args.
func printf(r *run, format string, args []any, named map[string]any) any {
	used, at := 0, 0
	var b strings.Builder
	for _, m := range conversion.FindAllStringSubmatchIndex(format, -1) {
		part := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return format[m[2*i]:m[2*i+1]]
		}
		r.write(&b, format[at:m[0]])
		at = m[1]
		flags, kind := part(2), part(5)
		if kind == "%" {
			r.write(&b, "%")
			continue
		}
		var v any
		switch name := part(1); {
		case m[2] >= 0 && named[name] != nil:
			v = named[name]
		case m[2] >= 0 && len(args) == 1 && typeName(args[0]) == "dict":
			v, _ = args[0].(*Dict).Get(name)
			used = 1
		case used < len(args):
			v = args[used]
			used++
		default:
			return r.failf("not enough arguments for the format %s", excerpt(repr(format)))
		}
		spec := "%" + flags
		for _, n := range []string{part(3), part(4)} {
			if width, err := strconv.Atoi(n); n != "" && (err != nil || width > maxWidth) {
				return r.failf("a format's width %s, want at most %d", excerpt(n), maxWidth)
			}
		}
		spec += part(3)
		if m[8] >= 0 {
			spec += "." + part(4)
		}
		if r.err != nil || !r.make(2*maxWidth) {
			return nil
		}
		i, f, isInt, ok := number(v)
		switch {
		case kind == "s":
			r.write(&b, fmt.Sprintf(spec+"s", r.str(v)))
		case kind == "r":
			if r.deep(v, 0) {
				r.write(&b, fmt.Sprintf(spec+"s", repr(v)))
			}
		case !ok:
			return r.failf("%%%s format: want a number, not a %s", kind, typeName(v))
		case kind == "d" || kind == "i":
			if !isInt {
				i = int64(f)
			}
			r.write(&b, fmt.Sprintf(spec+"d", i))
		case isInt && strings.Contains("xXo", kind):
			r.write(&b, fmt.Sprintf(spec+kind, i))
		case strings.Contains("fFeEgG", kind):
			if m[8] < 0 {
				spec += ".6"
			}
			r.write(&b, fmt.Sprintf(spec+kind, f))
		default:
			return r.failf("format %%%s is not known", kind)
		}
	}
	if used < len(args) && len(named) == 0 {
		return r.failf("not all arguments converted by the format %s", excerpt(repr(format)))
	}
	r.write(&b, format[at:])
	return b.String()
}

package jinja

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// call is a function, filter or method at work, with what it was given.
type call struct {
	r     *run
	name  string
	v     any // what a filter or method is of
	args  []any
	named map[string]any
	used  int
}

// arg returns parameter i, called name, or otherwise if it was not given.
func (c *call) arg(i int, name string, otherwise any) any {
	if v, ok := c.named[name]; ok {
		c.used++
		return v
	}
	if i < len(c.args) {
		c.used++
		return c.args[i]
	}
	return otherwise
}

// text is arg where it has to be a string.
func (c *call) text(i int, name, otherwise string) string {
	v := c.arg(i, name, otherwise)
	s, ok := v.(string)
	if !ok {
		c.r.failf("%s: %s is a %s, want a string", c.name, name, typeName(v))
	}
	return s
}

// int is arg where it has to be an integer.
func (c *call) int(i int, name string, otherwise int64) int64 {
	v := c.arg(i, name, otherwise)
	n, _, isInt, _ := number(v)
	if !isInt {
		c.r.failf("%s: %s is a %s, want an integer", c.name, name, typeName(v))
	}
	return n
}

// self is v where it has to be a string.
func (c *call) self() string {
	c.r.make(size(c.v)) // about to be copied
	return c.r.str(c.v)
}

// done refuses arguments that nobody asked for.
func (c *call) done() {
	if c.r.err == nil && c.used < len(c.args)+len(c.named) {
		c.r.failf("%s: %d arguments, want %d", c.name, len(c.args)+len(c.named), c.used)
	}
}

type builtin func(c *call) any

// reads is how many steps it takes to go through a string.
func reads(v any) int {
	s, _ := v.(string)
	return len(s) / 64
}

// invoke runs f, holds it to its arguments and counts what it returns.
func (r *run) invoke(f builtin, c *call) any {
	if r.err != nil {
		return nil
	}
	if !r.step(reads(c.v)) || slices.ContainsFunc(c.args, func(v any) bool { return !r.step(reads(v)) }) {
		return nil
	}
	v := f(c)
	c.done()
	if r.err != nil {
		return nil
	}
	return r.made(v)
}

func (r *run) filter(name string, v any, args []any, named map[string]any) any {
	if name == "default" || name == "d" {
		// Its value may be undefined; every other filter says what it makes of that.
		named = renamed(named, "default_value", "default")
	}
	f, ok := filters[name]
	if !ok {
		return r.failf("filter %s is not known", excerpt(name))
	}
	return r.invoke(f, &call{r: r, name: "filter " + name, v: v, args: args, named: named})
}

func renamed(m map[string]any, from, to string) map[string]any {
	v, ok := m[from]
	if !ok {
		return m
	}
	delete(m, from)
	m[to] = v
	return m
}

// method returns a method of v as a function.
func method(v any, name string, of map[string]builtin) (any, bool) {
	f, ok := of[name]
	if !ok {
		return nil, false
	}
	return &function{name: name, call: func(r *run, args []any, named map[string]any) any {
		return r.invoke(f, &call{r: r, name: name, v: v, args: args, named: named})
	}}, true
}

// globals are the functions that a template can call.
var globals map[string]func(r *run, args []any, named map[string]any) any

func global(name string, f builtin) {
	globals[name] = func(r *run, args []any, named map[string]any) any {
		return r.invoke(f, &call{r: r, name: name, args: args, named: named})
	}
}

func init() {
	globals = map[string]func(r *run, args []any, named map[string]any) any{
		"namespace": func(r *run, args []any, named map[string]any) any {
			ns := &namespace{vars: map[string]any{}}
			d := r.dict(args, named)
			for i, k := range d.keys {
				if name, ok := k.(string); ok {
					ns.vars[name] = d.values[i]
				}
			}
			return ns
		},
		"dict": func(r *run, args []any, named map[string]any) any { return r.dict(args, named) },
	}
	global("range", rangeOf)
	global("raise_exception", func(c *call) any {
		c.r.fail(&RaisedError{c.text(0, "message", "")})
		return nil
	})
	global("strftime_now", func(c *call) any { return strftime(c.r.now, c.text(0, "format", "")) })
}

// dict is dict(*args, **named), in the order of names.
func (r *run) dict(args []any, named map[string]any) *Dict {
	d := NewDict()
	for _, a := range args {
		if from, ok := a.(*Dict); ok {
			for i, k := range from.keys {
				d.Set(k, from.values[i])
			}
			continue
		}
		for _, pair := range r.items(a) {
			if kv := r.items(pair); len(kv) == 2 && r.hashable(kv[0]) {
				d.Set(kv[0], kv[1])
			} else {
				r.failf("dict: want pairs of a key and a value")
			}
		}
	}
	names := make([]string, 0, len(named))
	for name := range named {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		d.Set(name, named[name])
	}
	r.make(size(d))
	return d
}

func rangeOf(c *call) any {
	from, to, step := int64(0), c.int(0, "start", 0), int64(1)
	if len(c.args) > 1 {
		from, to = to, c.int(1, "stop", 0)
	}
	if len(c.args) > 2 {
		step = c.int(2, "step", 1)
	}
	if step == 0 {
		return c.r.failf("range: step 0")
	}
	n := 0.0
	if step > 0 && to > from || step < 0 && to < from {
		n = math.Ceil((float64(to) - float64(from)) / float64(step))
	}
	if n > 100_000 { // the sandbox's own bound
		return c.r.failf("range of %.0f numbers, want at most 100000", n)
	}
	l := &List{}
	for i := range int64(n) {
		l.Items = append(l.Items, from+i*step)
	}
	return l
}

// strftime writes t as Python's strftime does in the C locale.
func strftime(t time.Time, format string) string {
	codes := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'B': "January", 'b': "Jan", 'h': "Jan",
		'A': "Monday", 'a': "Mon", 'y': "06", 'I': "03", 'p': "PM", 'Z': "MST", 'z': "-0700", 'j': "002", 'e': "_2",
		'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		layout, ok := codes[format[i]]
		switch {
		case ok:
			b.WriteString(t.Format(layout))
		case format[i] == '%':
			b.WriteByte('%')
		case format[i] == 'f':
			fmt.Fprintf(&b, "%06d", t.Nanosecond()/1000)
		case format[i] == '-' && i+1 < len(format) && codes[format[i+1]] != "": // GNU's, without zeros
			i++
			s := strings.TrimLeft(t.Format(codes[format[i]]), "0 ")
			if s == "" {
				s = "0"
			}
			b.WriteString(s)
		default:
			b.WriteByte('%')
			b.WriteByte(format[i])
		}
	}
	return b.String()
}

// tests are what can follow "is".
var tests map[string]func(r *run, v any, args []any) bool

func init() {
	is := func(names ...string) func(*run, any, []any) bool {
		return func(_ *run, v any, _ []any) bool { return slices.Contains(names, typeName(v)) }
	}
	compare := func(op string) func(*run, any, []any) bool {
		return func(r *run, v any, args []any) bool {
			if len(args) != 1 {
				r.failf("test %s: %d arguments, want 1", op, len(args))
				return false
			}
			return r.compare(op, v, args[0])
		}
	}
	integer := func(f func(r *run, v int64, args []any) bool) func(*run, any, []any) bool {
		return func(r *run, v any, args []any) bool {
			i, _, isInt, _ := number(v)
			if !isInt {
				r.failf("a %s is no integer", typeName(v))
				return false
			}
			return f(r, i, args)
		}
	}
	cased := func(same func(string) string) func(*run, any, []any) bool {
		return func(r *run, v any, _ []any) bool {
			s := r.str(v)
			return r.make(2*len(s)) && same(s) == s && strings.ContainsFunc(s, unicode.IsLetter)
		}
	}
	tests = map[string]func(r *run, v any, args []any) bool{
		"defined":   func(_ *run, v any, _ []any) bool { _, is := v.(undefined); return !is },
		"undefined": is("Undefined"),
		"none":      func(_ *run, v any, _ []any) bool { return v == nil },
		"boolean":   is("bool"), "string": is("str"), "float": is("float"), "integer": is("int"),
		"number": is("int", "float", "bool"), "mapping": is("dict"),
		"sequence": is("str", "list", "tuple", "dict", "Undefined"),
		"iterable": is("str", "list", "tuple", "dict", "Undefined"),
		"callable": is("function"),
		"true":     func(_ *run, v any, _ []any) bool { return v == true },
		"false":    func(_ *run, v any, _ []any) bool { return v == false },
		"odd":      integer(func(_ *run, v int64, _ []any) bool { return v%2 != 0 }),
		"even":     integer(func(_ *run, v int64, _ []any) bool { return v%2 == 0 }),
		"divisibleby": integer(func(r *run, v int64, args []any) bool {
			by := int64(0)
			if len(args) == 1 {
				by, _, _, _ = number(args[0])
			}
			if by == 0 {
				r.failf("test divisibleby: want a number that is not 0")
				return false
			}
			return v%by == 0
		}),
		"upper": cased(strings.ToUpper), "lower": cased(strings.ToLower),
		"sameas": func(r *run, v any, args []any) bool {
			return len(args) == 1 && typeName(v) == typeName(args[0]) && r.hashable(v) && r.equal(v, args[0], 0)
		},
		"eq": compare("=="), "equalto": compare("=="), "ne": compare("!="),
		"lt": compare("<"), "lessthan": compare("<"), "le": compare("<="),
		"gt": compare(">"), "greaterthan": compare(">"), "ge": compare(">="), "in": compare("in"),
		"filter": func(r *run, v any, _ []any) bool { _, ok := filters[excerpt(r.str(v))]; return ok },
		"test":   func(r *run, v any, _ []any) bool { _, ok := tests[excerpt(r.str(v))]; return ok },
	}
}

func (r *run) test(name string, v any, args []any) bool {
	f, ok := tests[name]
	if !ok {
		r.failf("test %s is not known", excerpt(name))
	}
	return r.err == nil && f(r, v, args) && r.err == nil
}

// dictMethods and listMethods are those that change nothing: the sandbox refuses
// the others.
var dictMethods = map[string]builtin{
	"keys":   func(c *call) any { return &List{Items: c.v.(*Dict).keys} },
	"values": func(c *call) any { return &List{Items: c.v.(*Dict).values} },
	"items":  func(c *call) any { return pairs(c.r, c.v.(*Dict)) },
	"copy":   func(c *call) any { return c.v },
	"get": func(c *call) any {
		key, otherwise := c.arg(0, "key", nil), c.arg(1, "default", nil)
		if !c.r.hashable(key) {
			return c.r.failf("get: a %s cannot be a key", typeName(key))
		}
		if v, ok := c.v.(*Dict).Get(key); ok {
			return v
		}
		return otherwise
	},
	"pop": refused, "update": refused, "clear": refused, "setdefault": refused, "popitem": refused,
}

var listMethods = map[string]builtin{
	"index": func(c *call) any {
		want := c.arg(0, "value", nil)
		for i, v := range c.v.(*List).Items {
			if c.r.equal(v, want, 0) {
				return int64(i)
			}
		}
		return c.r.failf("index: the value is not in the list")
	},
	"count": func(c *call) any {
		n, want := int64(0), c.arg(0, "value", nil)
		for _, v := range c.v.(*List).Items {
			if c.r.equal(v, want, 0) {
				n++
			}
		}
		return n
	},
	"copy":   func(c *call) any { return c.v },
	"append": refused, "extend": refused, "insert": refused, "pop": refused, "remove": refused,
	"reverse": refused, "sort": refused, "clear": refused,
}

func refused(c *call) any {
	return c.r.failf("%s is not safely callable: it changes a %s", c.name, typeName(c.v))
}

// pairs returns d's items as a list of tuples.
func pairs(r *run, d *Dict) *List {
	l := &List{}
	if r.make(64 * len(d.keys)) {
		for i := range d.keys {
			l.Items = append(l.Items, &List{[]any{d.keys[i], d.values[i]}, true})
		}
	}
	return l
}

// stripped returns a method that strips characters by cut: those that it is given, by
// default blanks.
func stripped(cut func(s string, f func(r rune) bool) string) builtin {
	return func(c *call) any {
		chars, ok := c.arg(0, "chars", nil).(string)
		if !ok || !c.r.make(16*len(chars)) {
			return cut(c.self(), isSpace)
		}
		set := make(map[rune]bool)
		for _, r := range chars {
			set[r] = true
		}
		return cut(c.self(), func(r rune) bool { return set[r] })
	}
}

func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

func affix(has func(s, part string) bool) builtin {
	return func(c *call) any {
		s := c.self()
		if several, ok := c.arg(0, "prefix", nil).(*List); ok && several.tuple {
			return slices.ContainsFunc(several.Items, func(v any) bool {
				part, ok := v.(string)
				return ok && c.r.step(1+reads(part)) && has(s, part)
			})
		}
		c.used--
		return has(s, c.text(0, "prefix", ""))
	}
}

func mapped(f func(s string) string) builtin { return func(c *call) any { return f(c.self()) } }

// allOf returns a method that holds all characters of a string, which has some,
// against f.
func allOf(f func(r rune) bool) builtin {
	return func(c *call) any {
		s := c.self()
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !f(r) })
	}
}

// found returns a method that finds a string by at, in characters.
func found(at func(s, part string) int, must bool) builtin {
	return func(c *call) any {
		s := c.self()
		i := at(s, c.text(0, "sub", ""))
		if i < 0 {
			if must {
				return c.r.failf("%s: substring not found", c.name)
			}
			return int64(-1)
		}
		return int64(runeCount(s[:i]))
	}
}

var stringMethods map[string]builtin

func init() {
	stringMethods = map[string]builtin{
		"strip":      stripped(strings.TrimFunc),
		"lstrip":     stripped(strings.TrimLeftFunc),
		"rstrip":     stripped(strings.TrimRightFunc),
		"startswith": affix(strings.HasPrefix), "endswith": affix(strings.HasSuffix),
		"removeprefix": func(c *call) any { return strings.TrimPrefix(c.self(), c.text(0, "prefix", "")) },
		"removesuffix": func(c *call) any { return strings.TrimSuffix(c.self(), c.text(0, "suffix", "")) },
		"upper":        mapped(strings.ToUpper), "lower": mapped(strings.ToLower),
		"title": mapped(title), "capitalize": mapped(capitalize), "casefold": mapped(strings.ToLower),
		"isdigit": allOf(unicode.IsDigit), "isnumeric": allOf(unicode.IsNumber), "isdecimal": allOf(unicode.IsDigit),
		"isalpha": allOf(unicode.IsLetter), "isspace": allOf(isSpace),
		"isalnum": allOf(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
		"isupper": func(c *call) any { return c.r.test("upper", c.v, nil) },
		"islower": func(c *call) any { return c.r.test("lower", c.v, nil) },
		"find":    found(strings.Index, false), "rfind": found(strings.LastIndex, false),
		"index": found(strings.Index, true), "rindex": found(strings.LastIndex, true),
		"count": func(c *call) any { return int64(strings.Count(c.self(), c.text(0, "sub", ""))) },
		"replace": func(c *call) any {
			return replace(c, c.text(0, "old", ""), c.text(1, "new", ""), c.int(2, "count", -1))
		},
		"split": func(c *call) any { return split(c, false) }, "rsplit": func(c *call) any { return split(c, true) },
		"splitlines": func(c *call) any {
			s := strings.ReplaceAll(strings.ReplaceAll(c.self(), "\r\n", "\n"), "\r", "\n")
			if s == "" {
				return &List{}
			}
			return c.strings(strings.Split(strings.TrimSuffix(s, "\n"), "\n"))
		},
		"partition": func(c *call) any {
			s, sep := c.self(), c.text(0, "sep", "")
			before, after, ok := strings.Cut(s, sep)
			if !ok {
				sep = ""
			}
			return &List{[]any{before, sep, after}, true}
		},
		"join": func(c *call) any { return joined(c, c.arg(0, "iterable", nil), c.self()) },
		"zfill": func(c *call) any {
			s, width := c.self(), c.int(0, "width", 0)
			if missing := width - int64(runeCount(s)); missing > 0 {
				zeros, _ := c.r.repeat("0", missing).(string)
				return zeros + s
			}
			return s
		},
	}
}

// strings returns a list of them.
func (c *call) strings(parts []string) *List {
	l := &List{}
	if c.r.make(32 * len(parts)) {
		for _, p := range parts {
			l.Items = append(l.Items, p)
		}
	}
	return l
}

func replace(c *call, old, new string, n int64) any {
	s := c.self()
	count := strings.Count(s, old)
	if n >= 0 {
		count = int(min(n, int64(count)))
	}
	if !c.r.make(len(s) + count*len(new)) {
		return nil
	}
	return strings.Replace(s, old, new, count)
}

func split(c *call, right bool) any {
	s := c.self()
	sep, most := c.arg(0, "sep", nil), int(min(c.int(1, "maxsplit", -1), math.MaxInt32))
	if sep == nil {
		return c.strings(fields(s, most, right))
	}
	by, ok := sep.(string)
	if !ok || by == "" {
		return c.r.failf("%s: want a separator that is a string, not an empty one", c.name)
	}
	if !c.r.make(32 * (strings.Count(s, by) + 1)) {
		return nil
	}
	parts := strings.Split(s, by)
	if n := len(parts) - 1 - most; most >= 0 && n > 0 {
		if right {
			parts = append([]string{strings.Join(parts[:n+1], by)}, parts[n+1:]...)
		} else {
			parts = append(parts[:most:most], strings.Join(parts[most:], by))
		}
	}
	return c.strings(parts)
}

// fields splits s at blanks, at most that often.
func fields(s string, most int, right bool) []string {
	trim := strings.TrimLeftFunc
	if right {
		trim = strings.TrimRightFunc
	}
	var parts []string
	for s = trim(s, isSpace); s != ""; s = trim(s, isSpace) {
		if most >= 0 && len(parts) == most {
			parts = append(parts, s)
			break
		}
		rest := trim(s, func(r rune) bool { return !isSpace(r) })
		if right {
			parts = append(parts, s[len(rest):])
		} else {
			parts = append(parts, s[:len(s)-len(rest)])
		}
		s = rest
	}
	if right {
		slices.Reverse(parts)
	}
	return parts
}

func capitalize(s string) string {
	for i := range s {
		if i > 0 {
			return strings.ToUpper(s[:i]) + strings.ToLower(s[i:])
		}
	}
	return strings.ToUpper(s)
}

// title is Python's str.title: letters that follow none are capitals.
func title(s string) string {
	before := false
	return strings.Map(func(r rune) rune {
		was := before
		before = unicode.IsLetter(r)
		if was {
			return unicode.ToLower(r)
		}
		return unicode.ToTitle(r)
	}, s)
}

func joined(c *call, v any, sep string) any {
	var b strings.Builder
	for i, item := range c.r.items(v) {
		if i > 0 {
			c.r.write(&b, sep)
		}
		c.r.write(&b, c.r.str(item))
	}
	return b.String()
}

// parseInt is Python's int(s), as far as it fits.
func parseInt(s string, base int) (int64, bool) {
	s = strings.TrimFunc(s, isSpace)
	v, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), base, 64)
	return v, err == nil
}

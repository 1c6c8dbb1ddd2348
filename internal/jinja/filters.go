package jinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// filters are what can follow a "|".
var filters map[string]builtin

func init() {
	filters = map[string]builtin{
		"abs": func(c *call) any {
			i, f, isInt, ok := number(c.v)
			switch {
			case !ok:
				return c.r.failf("abs of a %s", typeName(c.v))
			case isInt:
				return max(i, -i)
			}
			return math.Abs(f)
		},
		"attr": func(c *call) any {
			if v, ok := attribute(c.v, c.text(0, "name", "")); ok {
				return v
			}
			return undefined{"attribute"}
		},
		"batch":      batch,
		"capitalize": mapped(capitalize),
		"count":      length, "length": length,
		"default": defaulted, "d": defaulted,
		"dictsort": dictsort,
		"escape":   escaped, "e": escaped,
		"first": func(c *call) any { return end(c, 0) },
		"last":  func(c *call) any { return end(c, -1) },
		"float": func(c *call) any {
			otherwise := c.arg(0, "default", 0.0)
			if _, f, _, ok := number(c.v); ok {
				return f
			}
			if s, ok := c.v.(string); ok {
				if f, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimFunc(s, isSpace), "_", ""), 64); err == nil {
					return f
				}
			}
			return otherwise
		},
		"format": func(c *call) any {
			return printf(c.r, c.self(), c.rest(0), c.named)
		},
		"groupby": groupby,
		"indent":  indent,
		"int":     integer,
		"items": func(c *call) any {
			switch v := c.v.(type) {
			case undefined:
				return &List{}
			case *Dict:
				return pairs(c.r, v)
			}
			return c.r.failf("items of a %s, want a mapping", typeName(c.v))
		},
		"join": func(c *call) any {
			sep, attr := c.r.str(c.arg(0, "d", "")), c.arg(1, "attribute", nil)
			items := c.r.items(c.v)
			if attr != nil {
				items = c.each(items, attr)
			}
			return joined(c, &List{Items: items}, sep)
		},
		"list":  func(c *call) any { return &List{Items: c.r.items(c.v)} },
		"lower": mapped(strings.ToLower), "upper": mapped(strings.ToUpper), "title": mapped(titleFilter),
		"map": mapFilter,
		"max": func(c *call) any { return extreme(c, 1) }, "min": func(c *call) any { return extreme(c, -1) },
		"reject":     func(c *call) any { return selected(c, false, false) },
		"rejectattr": func(c *call) any { return selected(c, true, false) },
		"select":     func(c *call) any { return selected(c, false, true) },
		"selectattr": func(c *call) any { return selected(c, true, true) },
		"replace": func(c *call) any {
			return replace(c, c.r.str(c.arg(0, "old", "")), c.r.str(c.arg(1, "new", "")), int64orAll(c.arg(2, "count", nil)))
		},
		"reverse": func(c *call) any {
			if s, ok := c.v.(string); ok && c.r.make(4*len(s)) {
				chars := runes(s)
				slices.Reverse(chars)
				return string(chars)
			}
			items := slices.Clone(c.r.items(c.v))
			slices.Reverse(items)
			return &List{Items: items}
		},
		"round":  round,
		"safe":   func(c *call) any { return c.self() },
		"sort":   sorted,
		"string": func(c *call) any { return c.self() },
		"sum": func(c *call) any {
			attr, total := c.arg(0, "attribute", nil), c.arg(1, "start", int64(0))
			items := c.r.items(c.v)
			if attr != nil {
				items = c.each(items, attr)
			}
			for _, v := range items {
				total = c.r.eval(&binaryExpr{"+", constExpr{total}, constExpr{v}}, nil)
			}
			return total
		},
		"tojson": tojson,
		"trim":   stripped(strings.TrimFunc),
		"unique": unique,
		"wordcount": func(c *call) any {
			return int64(len(strings.FieldsFunc(c.self(), func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r) })))
		},
	}
}

func int64orAll(v any) int64 {
	if n, _, isInt, _ := number(v); isInt {
		return n
	}
	return -1
}

func length(c *call) any {
	switch v := c.v.(type) {
	case string:
		return int64(runeCount(v))
	case *List:
		return int64(len(v.Items))
	case *Dict:
		return int64(len(v.keys))
	case undefined:
		return int64(0)
	}
	return c.r.failf("length of a %s", typeName(c.v))
}

func defaulted(c *call) any {
	otherwise, also := c.arg(0, "default", ""), c.arg(1, "boolean", false)
	if _, is := c.v.(undefined); is || truth(also) && !truth(c.v) {
		return otherwise
	}
	return c.v
}

var entities = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;")

func escaped(c *call) any { return entities.Replace(c.self()) }

// end is the first or, for −1, the last item.
func end(c *call, i int) any {
	items := c.r.items(c.v)
	if len(items) == 0 {
		return undefined{"no first or last item, so it"}
	}
	if i < 0 {
		i += len(items)
	}
	return items[i]
}

func integer(c *call) any {
	otherwise, base := c.arg(0, "default", int64(0)), c.int(1, "base", 10)
	if i, f, isInt, ok := number(c.v); ok {
		if isInt {
			return i
		}
		if math.Abs(f) < 1<<62 {
			return int64(f)
		}
		return otherwise
	}
	if s, ok := c.v.(string); ok && base >= 2 && base <= 36 {
		if v, ok := parseInt(s, int(base)); ok {
			return v
		}
		if f, err := strconv.ParseFloat(strings.TrimFunc(s, isSpace), 64); err == nil && math.Abs(f) < 1<<62 {
			return int64(f)
		}
	}
	return otherwise
}

func round(c *call) any {
	places, how := c.int(0, "precision", 0), c.text(1, "method", "common")
	_, f, isInt, ok := number(c.v)
	if !ok || places < 0 || places > 15 {
		return c.r.failf("round of a %s to %d places", typeName(c.v), places)
	}
	by := math.Pow(10, float64(places))
	switch how {
	case "ceil":
		return math.Ceil(f*by) / by
	case "floor":
		return math.Floor(f*by) / by
	case "common":
		if isInt {
			return c.v
		}
		v, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(places), 64), 64)
		return v
	}
	return c.r.failf("round by %q, want common, ceil or floor", excerpt(how))
}

func indent(c *call) any {
	by := c.arg(0, "width", int64(4))
	first, blank := truth(c.arg(1, "first", false)), truth(c.arg(2, "blank", false))
	prefix, ok := by.(string)
	if n, _, isInt, _ := number(by); isInt {
		prefix, ok = c.r.str(c.r.repeat(" ", n)), true
	}
	if !ok {
		return c.r.failf("indent by a %s", typeName(by))
	}
	s := c.self()
	if !c.r.make((strings.Count(s, "\n") + 1) * (len(prefix) + 32)) {
		return nil
	}
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if (i > 0 || first) && (line != "" || blank || i == 0) {
			lines[i] = prefix + line
		}
	}
	return strings.Join(lines, "\n")
}

// titleFilter is Jinja's own: a word begins after a blank or a bracket.
func titleFilter(s string) string {
	begins := true
	return strings.Map(func(r rune) rune {
		was := begins
		begins = isSpace(r) || strings.ContainsRune("-({[<", r)
		if was {
			return unicode.ToUpper(r)
		}
		return unicode.ToLower(r)
	}, s)
}

// at follows a path of attributes, "a.b.0".
func (c *call) at(v, path any) any {
	s, ok := path.(string)
	if !ok {
		return c.r.item(v, path)
	}
	for _, name := range strings.Split(s, ".") {
		if i, err := strconv.ParseInt(name, 10, 64); err == nil {
			v = c.r.item(v, i)
		} else {
			v = c.r.item(v, name)
		}
		if c.r.err != nil {
			return nil
		}
	}
	return v
}

// each returns an attribute of each item.
func (c *call) each(items []any, path any) []any {
	if !c.r.make(16 * len(items)) {
		return nil
	}
	out := make([]any, len(items))
	for i, v := range items {
		out[i] = c.at(v, path)
	}
	return out
}

// rest marks all arguments as used and returns those from i on.
func (c *call) rest(i int) []any {
	c.used = len(c.args) + len(c.named)
	return c.args[min(i, len(c.args)):]
}

func mapFilter(c *call) any {
	items := c.r.items(c.v)
	if attr, ok := c.named["attribute"]; ok {
		otherwise, has := c.named["default"]
		c.rest(0)
		out := c.each(items, attr)
		for i, v := range out {
			if _, is := v.(undefined); is && has {
				out[i] = otherwise
			}
		}
		return &List{Items: out}
	}
	name := c.text(0, "filter", "")
	args := c.rest(1)
	out := &List{}
	for _, v := range items {
		out.Items = append(out.Items, c.r.filter(name, v, args, c.named))
		if c.r.err != nil {
			return nil
		}
	}
	return out
}

// selected returns the items, or those with an attribute, that pass a test; or,
// unless want, the others.
func selected(c *call, byAttr, want bool) any {
	items, i := c.r.items(c.v), 0
	var attr any
	if byAttr {
		attr, i = c.arg(0, "attribute", ""), 1
	}
	test, args := "", []any(nil)
	if i < len(c.args) {
		test = c.text(i, "test", "")
		args = c.rest(i + 1)
	}
	out := &List{}
	for _, v := range items {
		of := v
		if byAttr {
			of = c.at(v, attr)
		}
		if c.r.err != nil {
			return nil
		}
		pass := truth(of)
		if test != "" {
			pass = c.r.test(test, of, args)
		}
		if pass == want {
			out.Items = append(out.Items, v)
		}
	}
	return out
}

// key returns what a sort or a comparison of filters goes by.
func (c *call) key(v any, attr any, cased bool) any {
	if attr != nil {
		v = c.at(v, attr)
	}
	if s, ok := v.(string); ok && !cased && c.r.make(len(s)) {
		return strings.ToLower(s)
	}
	return v
}

// sortBy sorts items by their keys; equal ones stay as they are.
func (c *call) sortBy(items []any, reverse bool, key func(v any) any) []any {
	if !c.r.make(48*len(items)) || !c.r.step(32*len(items)) {
		return nil
	}
	type keyed struct{ k, v any }
	all := make([]keyed, len(items))
	for i, v := range items {
		all[i] = keyed{key(v), v}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		d, ok := c.r.order(a.k, b.k, 0)
		if !ok && c.r.err == nil {
			c.r.failf("%s: a %s and a %s cannot be compared", c.name, typeName(a.k), typeName(b.k))
		}
		if reverse {
			return -d
		}
		return d
	})
	out := make([]any, len(all))
	for i, a := range all {
		out[i] = a.v
	}
	return out
}

func sorted(c *call) any {
	reverse, cased, attr := truth(c.arg(0, "reverse", false)), truth(c.arg(1, "case_sensitive", false)), c.arg(2, "attribute", nil)
	return &List{Items: c.sortBy(c.r.items(c.v), reverse, func(v any) any { return c.key(v, attr, cased) })}
}

func dictsort(c *call) any {
	cased, by, reverse := truth(c.arg(0, "case_sensitive", false)), c.text(1, "by", "key"), truth(c.arg(2, "reverse", false))
	d, ok := c.v.(*Dict)
	if !ok || by != "key" && by != "value" {
		return c.r.failf("dictsort of a %s by %s", typeName(c.v), excerpt(by))
	}
	at := 0
	if by == "value" {
		at = 1
	}
	return &List{Items: c.sortBy(pairs(c.r, d).Items, reverse, func(v any) any { return c.key(v.(*List).Items[at], nil, cased) })}
}

func extreme(c *call, sign int) any {
	cased, attr := truth(c.arg(0, "case_sensitive", false)), c.arg(1, "attribute", nil)
	items := c.r.items(c.v)
	if len(items) == 0 {
		return undefined{"no aggregated item, so it"}
	}
	best := items[0]
	for _, v := range items[1:] {
		d, ok := c.r.order(c.key(v, attr, cased), c.key(best, attr, cased), 0)
		if !ok {
			return c.r.failf("%s: a %s and a %s cannot be compared", c.name, typeName(v), typeName(best))
		}
		if d*sign > 0 {
			best = v
		}
	}
	return best
}

func unique(c *call) any {
	cased, attr := truth(c.arg(0, "case_sensitive", false)), c.arg(1, "attribute", nil)
	out, seen := &List{}, NewDict()
	for _, v := range c.r.items(c.v) {
		k := c.key(v, attr, cased)
		if !c.r.hashable(k) {
			return c.r.failf("unique: a %s cannot be a key", typeName(k))
		}
		if _, ok := seen.Get(k); !ok {
			seen.Set(k, true)
			out.Items = append(out.Items, v)
		}
	}
	return out
}

func batch(c *call) any {
	n, fill := c.int(0, "linecount", 0), c.arg(1, "fill_with", nil)
	if n < 1 {
		return c.r.failf("batch of %d items", n)
	}
	out, items := &List{}, c.r.items(c.v)
	for len(items) > 0 {
		k := int(min(n, int64(len(items))))
		part := &List{Items: items[:k:k]}
		items = items[k:]
		for fill != nil && int64(len(part.Items)) < n && c.r.make(16) {
			part.Items = append(part.Items, fill)
		}
		out.Items = append(out.Items, part)
	}
	return out
}

func groupby(c *call) any {
	attr, otherwise, cased := c.arg(0, "attribute", nil), c.arg(1, "default", nil), truth(c.arg(2, "case_sensitive", false))
	of := func(v any) any {
		k := c.key(v, attr, cased)
		if _, is := k.(undefined); is && otherwise != nil {
			return otherwise
		}
		return k
	}
	out := &List{}
	var last any
	for i, v := range c.sortBy(c.r.items(c.v), false, of) {
		k := of(v)
		if i == 0 || !c.r.equal(k, last, 0) {
			name := k
			if attr != nil {
				name = c.at(v, attr)
			}
			out.Items = append(out.Items, &List{[]any{name, &List{}}, true})
		}
		last = k
		group := out.Items[len(out.Items)-1].(*List).Items[1].(*List)
		group.Items = append(group.Items, v)
	}
	return out
}

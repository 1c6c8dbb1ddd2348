package jinja

import (
	"cmp"
	"math"
	"strings"
)

func (e constExpr) eval(*run, *scope) any     { return e.v }
func (e *nameExpr) eval(r *run, s *scope) any { return s.get(e.name) }

func (e *listExpr) eval(r *run, s *scope) any {
	l := &List{tuple: e.tuple}
	for _, item := range e.items {
		l.Items = append(l.Items, r.eval(item, s))
	}
	return r.made(l)
}

func (e *dictExpr) eval(r *run, s *scope) any {
	d := NewDict()
	for i := range e.keys {
		k, v := r.eval(e.keys[i], s), r.eval(e.values[i], s)
		if r.err == nil {
			r.set(d, k, v)
		}
	}
	return r.made(d)
}

// set sets a key of a new dict.
func (r *run) set(d *Dict, k, v any) {
	if !r.hashable(k) {
		r.failf("a %s cannot be a key", typeName(k))
		return
	}
	d.Set(k, v)
}

func (e *condExpr) eval(r *run, s *scope) any {
	switch {
	case truth(r.eval(e.cond, s)):
		return r.eval(e.then, s)
	case e.other == nil:
		return undefined{"the inline if-expression evaluated to false and no else section was defined, so it"}
	}
	return r.eval(e.other, s)
}

func (e *logicOp) eval(r *run, s *scope) any {
	a := r.eval(e.a, s)
	if truth(a) == e.or {
		return a
	}
	return r.eval(e.b, s)
}

func (e *notExpr) eval(r *run, s *scope) any { return !truth(r.eval(e.e, s)) }

func (e *compareExpr) eval(r *run, s *scope) any {
	a := r.eval(e.first, s)
	for i, op := range e.ops {
		b := r.eval(e.rest[i], s)
		if r.err != nil || !r.compare(op, a, b) {
			return false
		}
		a = b
	}
	return true
}

// compare is "a op b".
func (r *run) compare(op string, a, b any) bool {
	switch op {
	case "==":
		return r.equal(a, b, 0)
	case "!=":
		return !r.equal(a, b, 0)
	case "in":
		return r.in(a, b)
	case "not in":
		return !r.in(a, b)
	}
	c, ok := r.order(a, b, 0)
	if !ok {
		if math.IsNaN(asFloat(a)) || math.IsNaN(asFloat(b)) {
			return false
		}
		r.failf("'%s' not supported between a %s and a %s", op, typeName(a), typeName(b))
		return false
	}
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// asFloat returns a float as it is, anything else as 0.
func asFloat(v any) float64 {
	f, _ := v.(float64)
	return f
}

func (r *run) equal(a, b any, depth int) bool {
	if depth > maxNest {
		r.fail(errDepth)
	}
	if !r.step(1) {
		return false
	}
	if i, f, isInt, ok := number(a); ok {
		j, g, alsoInt, ok := number(b)
		if isInt && alsoInt {
			return ok && i == j
		}
		return ok && f == g
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case undefined:
		_, ok := b.(undefined)
		return ok
	case string:
		b, ok := b.(string)
		return ok && r.step(len(a)/64) && a == b
	case *List:
		b, ok := b.(*List)
		if !ok || a.tuple != b.tuple || len(a.Items) != len(b.Items) {
			return false
		}
		for i := range a.Items {
			if !r.equal(a.Items[i], b.Items[i], depth+1) {
				return false
			}
		}
		return true
	case *Dict:
		b, ok := b.(*Dict)
		if !ok || len(a.keys) != len(b.keys) {
			return false
		}
		for i, k := range a.keys {
			v, ok := b.Get(k)
			if !ok || !r.equal(a.values[i], v, depth+1) {
				return false
			}
		}
		return true
	}
	return a == b
}

// order compares what can be ordered.
func (r *run) order(a, b any, depth int) (int, bool) {
	if depth > maxNest {
		r.fail(errDepth)
	}
	if !r.step(1) {
		return 0, false
	}
	if i, f, isInt, ok := number(a); ok {
		j, g, alsoInt, ok := number(b)
		switch {
		case isInt && alsoInt:
			return cmp.Compare(i, j), ok
		case math.IsNaN(f) || math.IsNaN(g):
			return 0, false
		}
		return cmp.Compare(f, g), ok
	}
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		r.step(len(a) / 64)
		return strings.Compare(a, b), ok
	case *List:
		b, ok := b.(*List)
		if !ok || a.tuple != b.tuple {
			return 0, false
		}
		for i := range min(len(a.Items), len(b.Items)) {
			if !r.equal(a.Items[i], b.Items[i], depth+1) {
				return r.order(a.Items[i], b.Items[i], depth+1)
			}
		}
		return cmp.Compare(len(a.Items), len(b.Items)), true
	}
	return 0, false
}

// in is "a in b".
func (r *run) in(a, b any) bool {
	switch b := b.(type) {
	case string:
		s, ok := a.(string)
		if !ok {
			r.failf("'in <string>' requires a string, not a %s", typeName(a))
			return false
		}
		return r.step(len(b)/16) && strings.Contains(b, s)
	case *List:
		for _, v := range b.Items {
			if r.equal(a, v, 0) {
				return true
			}
		}
		return false
	case *Dict:
		if !r.hashable(a) {
			r.failf("a %s cannot be a key", typeName(a))
			return false
		}
		_, ok := b.Get(a)
		return ok
	case undefined:
		return false
	}
	r.failf("a %s has no items", typeName(b))
	return false
}

func (e *concatExpr) eval(r *run, s *scope) any {
	var b strings.Builder
	for _, part := range e.parts {
		v := r.eval(part, s)
		if r.err != nil {
			return nil
		}
		r.write(&b, r.str(v))
	}
	return b.String()
}

func (e *unaryExpr) eval(r *run, s *scope) any {
	v := r.eval(e.e, s)
	i, f, isInt, ok := number(v)
	switch {
	case r.err != nil:
		return nil
	case !ok:
		if u, ok := v.(undefined); ok {
			return r.undefined(u)
		}
		return r.failf("bad operand for unary %s: a %s", e.op, typeName(v))
	case e.op == "+" && isInt:
		return i
	case e.op == "+":
		return f
	case isInt:
		return -i
	}
	return -f
}

func (e *binaryExpr) eval(r *run, s *scope) any {
	a, b := r.eval(e.a, s), r.eval(e.b, s)
	if r.err != nil {
		return nil
	}
	for _, v := range []any{a, b} {
		if u, ok := v.(undefined); ok {
			return r.undefined(u)
		}
	}
	i, f, aInt, aNum := number(a)
	j, g, bInt, bNum := number(b)
	switch {
	case aNum && bNum && aInt && bInt:
		return r.integers(e.op, i, j)
	case aNum && bNum:
		return r.floats(e.op, f, g)
	case e.op == "+":
		switch a := a.(type) {
		case string:
			if b, ok := b.(string); ok && r.make(len(a)+len(b)) {
				return a + b
			}
		case *List:
			if b, ok := b.(*List); ok && a.tuple == b.tuple && r.make(16*(len(a.Items)+len(b.Items))) {
				return &List{append(a.Items[:len(a.Items):len(a.Items)], b.Items...), a.tuple}
			}
		}
	case e.op == "%" && typeName(a) == "str":
		if l, ok := b.(*List); ok && l.tuple {
			return printf(r, a.(string), l.Items, nil)
		}
		return printf(r, a.(string), []any{b}, nil)
	case e.op == "*" && bInt:
		return r.repeat(a, j)
	case e.op == "*" && aInt:
		return r.repeat(b, i)
	}
	if r.err != nil {
		return nil
	}
	return r.failf("unsupported operands for %s: a %s and a %s", e.op, typeName(a), typeName(b))
}

// repeat is v n times over.
func (r *run) repeat(v any, n int64) any {
	n = max(0, n)
	size := int64(size(v))
	if size > 0 && n > maxBytes/size {
		r.fail(errBytes)
		return nil
	}
	switch v := v.(type) {
	case string:
		if r.make(int(n * size)) {
			return strings.Repeat(v, int(n*min(1, size)))
		}
		return nil
	case *List:
		l := &List{tuple: v.tuple}
		if r.make(int(n * size)) {
			for range n * min(1, size) {
				l.Items = append(l.Items, v.Items...)
			}
		}
		return l
	}
	return r.failf("a %s cannot be repeated", typeName(v))
}

func (r *run) integers(op string, a, b int64) any {
	if b == 0 && (op == "/" || op == "//" || op == "%") {
		return r.failf("division by zero")
	}
	large := func(v float64) bool { return math.Abs(v) >= 1<<62 }
	switch op {
	case "+", "-", "*":
		v, f := a+b, float64(a)+float64(b)
		if op == "-" {
			v, f = a-b, float64(a)-float64(b)
		} else if op == "*" {
			v, f = a*b, float64(a)*float64(b)
		}
		if large(f) {
			return r.failf("integer beyond 62 bits")
		}
		return v
	case "/":
		return float64(a) / float64(b)
	case "//":
		return floorDiv(a, b)
	case "%":
		return a - floorDiv(a, b)*b
	}
	if b < 0 {
		return math.Pow(float64(a), float64(b))
	}
	if large(math.Pow(float64(a), float64(b))) {
		return r.failf("integer beyond 62 bits")
	}
	v := int64(1)
	for base := a; b > 0; b >>= 1 {
		if b&1 == 1 {
			v *= base
		}
		base *= base
	}
	return v
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func (r *run) floats(op string, a, b float64) any {
	if b == 0 && (op == "/" || op == "//" || op == "%") {
		return r.failf("division by zero")
	}
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "/":
		return a / b
	case "//":
		return math.Floor(a / b)
	case "%":
		return a - math.Floor(a/b)*b
	}
	return math.Pow(a, b)
}

func (e *attrExpr) eval(r *run, s *scope) any { return r.attr(r.eval(e.e, s), e.name) }

// attr is v.name: an attribute of v, or else the item.
func (r *run) attr(v any, name string) any {
	if r.err != nil || !r.step(reads(name)) {
		return nil
	}
	if a, ok := attribute(v, name); ok {
		return a
	}
	switch v := v.(type) {
	case undefined:
		return r.undefined(v)
	case *Dict:
		if item, ok := v.Get(name); ok {
			return item
		}
	}
	return undefined{"attribute '" + name + "' of a " + typeName(v)}
}

// attribute returns what v has by itself, as opposed to what is in it.
func attribute(v any, name string) (any, bool) {
	switch v := v.(type) {
	case string:
		return method(v, name, stringMethods)
	case *Dict:
		return method(v, name, dictMethods)
	case *List:
		return method(v, name, listMethods)
	case *namespace:
		a, ok := v.vars[name]
		return a, ok
	case *loop:
		return v.attribute(name)
	case *function:
		if name == "name" {
			return v.name, true
		}
	}
	return nil, false
}

func (l *loop) attribute(name string) (any, bool) {
	n := len(l.items)
	number := map[string]int{
		"index": l.i + 1, "index0": l.i, "revindex": n - l.i, "revindex0": n - l.i - 1,
		"length": n, "depth": 1, "depth0": 0, // more in recursive loops only
	}
	if v, ok := number[name]; ok {
		return int64(v), true
	}
	switch name {
	case "first":
		return l.i == 0, true
	case "last":
		return l.i == n-1, true
	case "previtem":
		if l.i > 0 {
			return l.items[l.i-1], true
		}
		return undefined{"there is no previous item, so loop.previtem"}, true
	case "nextitem":
		if l.i < n-1 {
			return l.items[l.i+1], true
		}
		return undefined{"there is no next item, so loop.nextitem"}, true
	case "cycle":
		return &function{name: name, call: func(r *run, args []any, _ map[string]any) any {
			if len(args) == 0 {
				return r.failf("no items for cycling given")
			}
			return args[l.i%len(args)]
		}}, true
	case "changed":
		return &function{name: name, call: func(r *run, args []any, _ map[string]any) any {
			now := &List{Items: args, tuple: true}
			same := l.called && r.equal(l.changed, now, 0)
			l.changed, l.called = now, true
			return !same
		}}, true
	}
	return nil, false
}

func (e *itemExpr) eval(r *run, s *scope) any {
	v, key := r.eval(e.e, s), r.eval(e.key, s)
	if r.err != nil {
		return nil
	}
	return r.item(v, key)
}

// item is v[key]: the item, or else the attribute of that name.
func (r *run) item(v, key any) any {
	i, _, isInt, _ := number(key)
	switch v := v.(type) {
	case undefined:
		return r.undefined(v)
	case *Dict:
		if r.hashable(key) {
			if item, ok := v.Get(key); ok {
				return item
			}
		}
	case *List:
		if isInt {
			if i < 0 {
				i += int64(len(v.Items))
			}
			if i >= 0 && i < int64(len(v.Items)) {
				return v.Items[i]
			}
		}
	case string:
		if isInt && r.make(len(v)) {
			chars := runes(v)
			if i < 0 {
				i += int64(len(chars))
			}
			if i >= 0 && i < int64(len(chars)) {
				return string(chars[i])
			}
		}
	}
	if name, ok := key.(string); ok && r.step(reads(name)) {
		if a, ok := attribute(v, name); ok {
			return a
		}
	}
	return undefined{"item " + excerpt(r.str(key)) + " of a " + typeName(v)}
}

// excerpt is the beginning of s.
func excerpt(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

func (e *sliceExpr) eval(r *run, s *scope) any {
	v := r.eval(e.e, s)
	var bounds [3]*int64
	for i, b := range []expr{e.from, e.to, e.step} {
		if b == nil {
			continue
		}
		bound := r.eval(b, s)
		n, _, isInt, _ := number(bound)
		switch {
		case r.err != nil:
			return nil
		case isInt:
			bounds[i] = &n
		case bound != nil:
			return undefined{"slice by a " + typeName(bound)}
		}
	}
	if r.err != nil || !r.make(4*size(v)) {
		return nil
	}
	switch v := v.(type) {
	case undefined:
		return r.undefined(v)
	case string:
		chars := runes(v)
		var out []rune
		r.slice(len(chars), bounds, func(i int) { out = append(out, chars[i]) })
		return string(out)
	case *List:
		out := &List{tuple: v.tuple}
		r.slice(len(v.Items), bounds, func(i int) { out.Items = append(out.Items, v.Items[i]) })
		return out
	}
	return undefined{"slice of a " + typeName(v)}
}

// slice calls take with the indices of [from:to:step] of n items.
func (r *run) slice(n int, bounds [3]*int64, take func(i int)) {
	step := int64(1)
	if bounds[2] != nil {
		step = *bounds[2]
	}
	if step == 0 {
		r.failf("slice step cannot be zero")
		return
	}
	size := int64(n)
	low, high := int64(0), size // where a bound may lie
	from, to := low, high
	if step < 0 {
		low, high = -1, size-1
		from, to = high, low
	}
	place := func(b *int64, otherwise int64) int64 {
		if b == nil {
			return otherwise
		}
		v := *b
		if v < 0 {
			v += size
		}
		return min(max(v, low), high)
	}
	from, to = place(bounds[0], from), place(bounds[1], to)
	for i := from; step > 0 && i < to || step < 0 && i > to; {
		take(int(i))
		if step > size || step < -size {
			return
		}
		i += step
	}
}

func (e *callExpr) eval(r *run, s *scope) any {
	f := r.eval(e.f, s)
	args, named := r.args(e, s)
	return r.call(f, args, named)
}

func (e *filterExpr) eval(r *run, s *scope) any {
	v := r.eval(e.e, s)
	args, named := r.args(e.call, s)
	return r.filter(e.name, v, args, named)
}

func (e *testExpr) eval(r *run, s *scope) any {
	v := r.eval(e.e, s)
	args, _ := r.args(e.call, s)
	return r.test(e.name, v, args) != e.negate
}

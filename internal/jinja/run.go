package jinja

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// writer takes what a template says.
type writer = *strings.Builder

// run is a Render under way. After the first error, values are of no use and
// nothing more happens.
type run struct {
	now   time.Time
	steps int // left
	bytes int // left
	depth int // of evaluation
	calls int // of macros within each other
	err   error
}

var (
	errSteps = fmt.Errorf("the template takes more than %d steps", maxSteps)
	errBytes = fmt.Errorf("the template makes more than %d MiB", maxBytes>>20)
	errDepth = errors.New("the template's values or calls lie too deep within each other")
)

func (r *run) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// failf is fail; the result is None.
func (r *run) failf(format string, args ...any) any {
	r.fail(fmt.Errorf(format, args...))
	return nil
}

// step counts n steps, and reports whether there is no error so far.
func (r *run) step(n int) bool {
	if r.steps -= n; r.steps < 0 {
		r.fail(errSteps)
	}
	return r.err == nil
}

// make counts n bytes that are about to be made, and reports whether they may be.
func (r *run) make(n int) bool {
	if n < 0 || n > r.bytes {
		r.fail(errBytes)
		return false
	}
	r.bytes -= n
	return r.step(1 + n/64)
}

// made counts v, and returns it.
func (r *run) made(v any) any {
	r.make(size(v))
	return v
}

// scope is what names mean.
type scope struct {
	vars   map[string]any
	parent *scope
}

// inner returns a scope within s.
func (s *scope) inner() *scope { return &scope{vars: map[string]any{}, parent: s} }

func (s *scope) get(name string) any {
	for ; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			return v
		}
	}
	return undefined{"'" + name + "'"}
}

func (r *run) exec(body []node, s *scope, w writer) loopEnd {
	for _, n := range body {
		if !r.step(1) {
			return endLoop
		}
		if end := n.exec(r, s, w); end != goOn {
			return end
		}
	}
	return goOn
}

// loopEnd says how a statement or a body ended.
type loopEnd uint8

const (
	goOn loopEnd = iota
	nextItem
	endLoop
)

func (r *run) write(w writer, text string) {
	if r.make(len(text)) {
		w.WriteString(text)
	}
}

// capture returns what a body says.
func (r *run) capture(body []node, s *scope) string {
	var b strings.Builder
	r.exec(body, s, &b)
	return b.String()
}

// eval is e's value.
func (r *run) eval(e expr, s *scope) any {
	if r.depth++; r.depth > 1000 {
		r.fail(errDepth)
	}
	defer func() { r.depth-- }()
	if !r.step(1) {
		return nil
	}
	return e.eval(r, s)
}

func (n *textNode) exec(r *run, s *scope, w writer) loopEnd {
	r.write(w, n.text)
	return goOn
}

func (n *outNode) exec(r *run, s *scope, w writer) loopEnd {
	v := r.eval(n.e, s)
	if r.err == nil {
		r.write(w, r.str(v))
	}
	return goOn
}

func (n *ifNode) exec(r *run, s *scope, w writer) loopEnd {
	for i, c := range n.conds {
		if truth(r.eval(c, s)) {
			return r.exec(n.bodies[i], s, w)
		}
		if r.err != nil {
			return endLoop
		}
	}
	if len(n.bodies) > len(n.conds) {
		return r.exec(n.bodies[len(n.conds)], s, w)
	}
	return goOn
}

func (n *groupNode) exec(r *run, s *scope, w writer) loopEnd { return r.exec(n.body, s.inner(), w) }

func (n *breakNode) exec(*run, *scope, writer) loopEnd {
	if n.next {
		return nextItem
	}
	return endLoop
}

// loop is the variable of a loop.
type loop struct {
	items   []any
	i       int
	changed any // what loop.changed was called with before
	called  bool
}

func (n *forNode) exec(r *run, s *scope, w writer) loopEnd {
	items := r.items(r.eval(n.over, s))
	if n.only != nil {
		var some []any
		for _, v := range items {
			in := s.inner()
			r.assign(in, n.target, v)
			if truth(r.eval(n.only, in)) {
				some = append(some, v)
			}
		}
		items = some
		r.make(16 * len(items))
	}
	l := &loop{items: items}
	if len(items) == 0 && r.err == nil {
		r.exec(n.none, s, w)
	}
	for i, v := range items {
		if !r.step(1) {
			break
		}
		l.i = i
		in := s.inner()
		in.vars["loop"] = l
		r.assign(in, n.target, v)
		if r.exec(n.body, in, w) == endLoop {
			break
		}
	}
	return goOn
}

// assign makes t mean v in s.
func (r *run) assign(s *scope, t target, v any) {
	switch {
	case r.err != nil:
	case t.parts != nil:
		items := r.items(v)
		if r.err == nil && len(items) != len(t.parts) {
			r.failf("%d values to unpack, want %d", len(items), len(t.parts))
		}
		if r.err == nil {
			for i, part := range t.parts {
				r.assign(s, part, items[i])
			}
		}
	case t.attr != "":
		ns, ok := s.get(t.name).(*namespace)
		if !ok {
			r.failf("cannot assign attribute %q: %s is no namespace", t.attr, t.name)
			return
		}
		ns.vars[t.attr] = v
	default:
		s.vars[t.name] = v
	}
}

func (n *setNode) exec(r *run, s *scope, w writer) loopEnd {
	r.assign(s, n.target, r.eval(n.value, s))
	return goOn
}

func (n *setBlockNode) exec(r *run, s *scope, w writer) loopEnd {
	in := s.inner()
	text := r.capture(n.body, in)
	r.assign(s, n.target, r.filtered(n.filters, in, text))
	return goOn
}

// filtered returns text as filters leave it.
func (r *run) filtered(filters expr, s *scope, text string) any {
	if filters == nil {
		return text
	}
	s.vars[blockVar] = text
	return r.eval(filters, s)
}

// blockVar is no name that a template can have.
const blockVar = " block"

func (blockText) eval(r *run, s *scope) any { return s.get(blockVar) }

func (n *filterNode) exec(r *run, s *scope, w writer) loopEnd {
	in := s.inner()
	text := r.capture(n.body, in)
	r.write(w, r.str(r.filtered(n.filters, in, text)))
	return goOn
}

func (n *withNode) exec(r *run, s *scope, w writer) loopEnd {
	in := s.inner()
	for i, t := range n.targets {
		r.assign(in, t, r.eval(n.values[i], s))
	}
	return r.exec(n.body, in, w)
}

func (n *macroNode) exec(r *run, s *scope, w writer) loopEnd {
	s.vars[n.macro.name] = n.macro.function(s)
	return goOn
}

// function returns m, defined in s, as a function.
func (m *macro) function(s *scope) *function {
	return &function{name: m.name, call: func(r *run, args []any, named map[string]any) any {
		if r.calls++; r.calls > maxCalls {
			r.fail(errDepth)
		}
		defer func() { r.calls-- }()
		if r.err != nil {
			return nil
		}
		in := s.inner()
		named = maps.Clone(named)
		if caller, ok := named["caller"]; ok {
			in.vars["caller"] = caller
			delete(named, "caller")
		} else {
			in.vars["caller"] = undefined{"No caller defined"}
		}
		rest := args[min(len(args), len(m.params)):]
		if len(rest) > 0 && !m.varargs {
			return r.failf("macro %s takes at most %d arguments, not %d", m.name, len(m.params), len(args))
		}
		in.vars["varargs"] = &List{Items: rest, tuple: true}
		first := len(m.params) - len(m.defaults)
		for i, name := range m.params {
			v, ok := named[name]
			delete(named, name)
			switch {
			case i < len(args) && ok:
				return r.failf("macro %s got two values for %s", m.name, name)
			case i < len(args):
				v = args[i]
			case !ok && i >= first:
				v = r.eval(m.defaults[i-first], in)
			case !ok:
				v = undefined{"parameter '" + name + "' was not provided"}
			}
			in.vars[name] = v
		}
		if len(named) > 0 && !m.kwargs {
			return r.failf("macro %s has no parameter %s", m.name, slices.Sorted(maps.Keys(named))[0])
		}
		in.vars["kwargs"] = r.dict(nil, named)
		return r.capture(m.body, in)
	}}
}

func (n *callNode) exec(r *run, s *scope, w writer) loopEnd {
	f := r.eval(n.call.f, s)
	args, named := r.args(n.call, s)
	named["caller"] = n.caller.function(s)
	v := r.call(f, args, named)
	if r.err == nil {
		r.write(w, r.str(v))
	}
	return goOn
}

// args evaluates the arguments of a call.
func (r *run) args(c *callExpr, s *scope) (args []any, named map[string]any) {
	named = map[string]any{}
	first := len(c.args) - len(c.keys)
	for i, a := range c.args {
		v := r.eval(a, s)
		if i < first {
			args = append(args, v)
			continue
		}
		if _, twice := named[c.keys[i-first]]; twice {
			r.failf("argument %s is given twice", c.keys[i-first])
		}
		named[c.keys[i-first]] = v
	}
	return args, named
}

func (r *run) call(f any, args []any, named map[string]any) any {
	if r.err != nil {
		return nil
	}
	switch f := f.(type) {
	case *function:
		if r.depth++; r.depth > 1000 {
			r.fail(errDepth)
		}
		defer func() { r.depth-- }()
		if r.err != nil {
			return nil
		}
		return f.call(r, args, named)
	case undefined:
		return r.undefined(f)
	}
	return r.failf("a %s cannot be called", typeName(f))
}

// undefined says that u is used where something has to be.
func (r *run) undefined(u undefined) any { return r.failf("%s is undefined", u.what) }

// str is str(v), counted.
func (r *run) str(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	if !r.deep(v, 0) {
		return ""
	}
	return str(v)
}

// deep counts all of v, which a function is about to walk through.
func (r *run) deep(v any, depth int) bool {
	if depth > maxNest {
		r.fail(errDepth)
		return false
	}
	if !r.make(8 + 4*size(v)) {
		return false
	}
	switch v := v.(type) {
	case *List:
		for _, item := range v.Items {
			if !r.deep(item, depth+1) {
				return false
			}
		}
	case *Dict:
		for i := range v.keys {
			if !r.deep(v.keys[i], depth+1) || !r.deep(v.values[i], depth+1) {
				return false
			}
		}
	}
	return true
}

// hashable reports whether v can be a key, and counts what it takes to look it up: a
// tuple may hold another twice, that one a third twice, and so on.
func (r *run) hashable(v any) bool {
	if l, ok := v.(*List); ok && !r.deep(l, 0) {
		return false
	}
	return r.step(reads(v)) && isKey(v)
}

// items is what a loop over v goes through.
func (r *run) items(v any) []any {
	if !r.make(size(v)) {
		return nil
	}
	switch v := v.(type) {
	case *List:
		return v.Items
	case *Dict:
		return v.keys
	case undefined:
		return nil
	case string:
		if !r.make(16 * len(v)) {
			return nil
		}
		items := make([]any, 0, len(v))
		for _, c := range v {
			items = append(items, string(c))
		}
		return items
	}
	if r.err == nil {
		r.failf("a %s has no items", typeName(v))
	}
	return nil
}

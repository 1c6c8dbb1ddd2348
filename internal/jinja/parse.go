package jinja

import (
	"fmt"
	"slices"
	"strconv"
)

// node is a statement; expr is an expression.
type (
	node interface {
		exec(r *run, s *scope, w writer) loopEnd
	}
	expr interface{ eval(r *run, s *scope) any }
)

// Statements.
type (
	textNode struct{ text string }
	outNode  struct{ e expr }
	ifNode   struct {
		conds  []expr
		bodies [][]node // one more than conds if there is an else
	}
	forNode struct {
		target     target
		over, only expr // only may be nil
		body, none []node
	}
	setNode struct {
		target target
		value  expr
	}
	setBlockNode struct {
		target  target
		filters expr // of blockText; nil for none
		body    []node
	}
	macroNode struct{ macro *macro }
	callNode  struct {
		call   *callExpr
		caller *macro
	}
	filterNode struct {
		filters expr
		body    []node
	}
	withNode struct {
		targets []target
		values  []expr
		body    []node
	}
	groupNode struct{ body []node } // generation
	breakNode struct{ next bool }   // continue if next
	macro     struct {
		name     string
		params   []string
		defaults []expr // of the last params
		body     []node

		varargs, kwargs bool // the body names them, so that more arguments are taken
	}
)

// target is what is assigned to: a name, an attribute of a namespace, or several.
type target struct {
	name, attr string
	parts      []target
}

// Expressions.
type (
	constExpr struct{ v any }
	nameExpr  struct{ name string }
	listExpr  struct {
		items []expr
		tuple bool
	}
	dictExpr struct{ keys, values []expr }
	condExpr struct{ cond, then, other expr } // other may be nil
	logicOp  struct {
		or   bool
		a, b expr
	}
	notExpr     struct{ e expr }
	compareExpr struct {
		first expr
		ops   []string
		rest  []expr
	}
	binaryExpr struct {
		op   string
		a, b expr
	}
	concatExpr struct{ parts []expr }
	unaryExpr  struct {
		op string
		e  expr
	}
	attrExpr struct {
		e    expr
		name string
	}
	itemExpr  struct{ e, key expr }
	sliceExpr struct{ e, from, to, step expr }
	callExpr  struct {
		f    expr
		args []expr
		keys []string // of the last args, given by name
	}
	filterExpr struct {
		e    expr
		name string
		call *callExpr // its arguments
	}
	testExpr struct {
		e      expr
		name   string
		call   *callExpr
		negate bool
	}
	blockText struct{} // the text of the block that a filter is of
)

// parser reads tokens. After the first error everything it returns is of no use.
type parser struct {
	tokens []token
	pos    int
	depth  int
	loops  int
	err    error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: %s", p.peek().line, fmt.Sprintf(format, args...))
		p.pos = len(p.tokens) - 1 // nothing is left to read
	}
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if p.pos < len(p.tokens)-1 {
		p.pos++
	}
	return t
}

// op skips an operator, if it is next.
func (p *parser) op(op string) bool {
	if p.peek().isOp(op) {
		p.next()
		return true
	}
	return false
}

// word skips a word, if it is next.
func (p *parser) word(name string) bool {
	if p.peek().isName(name) {
		p.next()
		return true
	}
	return false
}

func (p *parser) wantOp(op string) {
	if !p.op(op) {
		p.fail("unexpected %s, want %q", p.peek(), op)
	}
}

func (p *parser) wantWord(name string) {
	if !p.word(name) {
		p.fail("unexpected %s, want %s", p.peek(), name)
	}
}

func (p *parser) wantKind(kind tokenKind, what string) token {
	if p.peek().kind != kind {
		p.fail("unexpected %s, want %s", p.peek(), what)
	}
	return p.next()
}

func (p *parser) blockEnd() { p.wantKind(tokenBlockEnd, "the end of the block") }

// deeper counts what lies within each other; the result undoes it.
func (p *parser) deeper() func() {
	if p.depth++; p.depth > maxNest {
		p.fail("more than %d levels within each other", maxNest)
	}
	return func() { p.depth-- }
}

// body reads statements up to a block that begins with one of ends, whose name
// is the next token then, or to the end.
func (p *parser) body(ends ...string) []node {
	defer p.deeper()()
	var nodes []node
	for p.err == nil {
		switch t := p.peek(); t.kind {
		case tokenText:
			nodes = append(nodes, &textNode{p.next().text})
		case tokenOutput:
			p.next()
			nodes = append(nodes, &outNode{p.tuple(false)})
			p.wantKind(tokenOutputEnd, "the end of the expression")
		case tokenBlock:
			name := p.tokens[p.pos+1]
			if name.kind == tokenName && slices.Contains(ends, name.text) {
				p.next()
				return nodes
			}
			p.next()
			nodes = append(nodes, p.statement())
		default:
			if len(ends) > 0 {
				p.fail("unexpected %s, want %v", t, ends)
			}
			return nodes
		}
	}
	return nil
}

// until reads a body, the name that ends it and the end of that block.
func (p *parser) until(end string) []node {
	body := p.body(end)
	p.wantWord(end)
	return body
}

// statement reads one after its {%.
func (p *parser) statement() node {
	name := p.wantKind(tokenName, "a statement")
	var n node
	switch name.text {
	case "if":
		return p.ifStatement()
	case "for":
		return p.forStatement()
	case "set":
		return p.setStatement()
	case "macro":
		m := &macro{name: p.wantKind(tokenName, "a name").text}
		p.signature(m)
		p.blockEnd()
		p.macroBody(m, "endmacro")
		n = &macroNode{m}
	case "call":
		m := &macro{name: "caller"}
		if p.peek().isOp("(") {
			p.signature(m)
		}
		call, ok := p.unary(true).(*callExpr)
		if !ok {
			p.fail("call of what is no call")
			return nil
		}
		p.blockEnd()
		p.macroBody(m, "endcall")
		n = &callNode{call, m}
	case "filter":
		f := p.filters(&filterExpr{e: blockText{}})
		p.blockEnd()
		n = &filterNode{f, p.until("endfilter")}
	case "with":
		w := &withNode{}
		for p.peek().kind != tokenBlockEnd && p.err == nil {
			if len(w.targets) > 0 {
				p.wantOp(",")
			}
			w.targets = append(w.targets, p.target(false))
			p.wantOp("=")
			w.values = append(w.values, p.expression())
		}
		p.blockEnd()
		w.body = p.until("endwith")
		n = w
	case "generation":
		p.blockEnd()
		n = &groupNode{p.until("endgeneration")}
	case "break", "continue":
		if p.loops == 0 {
			p.fail("%s outside of a loop", name.text)
		}
		n = &breakNode{name.text == "continue"}
	default:
		p.fail("statement %q is not known", name.text)
		return nil
	}
	p.blockEnd()
	return n
}

// macroBody reads m's body, within which no loop is around.
func (p *parser) macroBody(m *macro, end string) {
	loops, first := p.loops, p.pos
	p.loops = 0
	m.body = p.until(end)
	p.loops = loops
	for _, t := range p.tokens[first:p.pos] {
		m.varargs = m.varargs || t.isName("varargs")
		m.kwargs = m.kwargs || t.isName("kwargs")
	}
}

func (p *parser) ifStatement() node {
	n := &ifNode{}
	for p.err == nil {
		n.conds = append(n.conds, p.tuple(false))
		p.blockEnd()
		n.bodies = append(n.bodies, p.body("elif", "else", "endif"))
		if p.word("elif") {
			continue
		}
		if p.word("else") {
			p.blockEnd()
			n.bodies = append(n.bodies, p.body("endif"))
		}
		p.wantWord("endif")
		p.blockEnd()
		return n
	}
	return nil
}

func (p *parser) forStatement() node {
	n := &forNode{target: p.target(true)}
	p.wantWord("in")
	n.over = p.tuple(true)
	if p.word("if") {
		n.only = p.expression()
	}
	if p.peek().isName("recursive") {
		p.fail("recursive loops are not known")
	}
	p.blockEnd()
	p.loops++
	n.body = p.body("else", "endfor")
	p.loops--
	if p.word("else") {
		p.blockEnd()
		n.none = p.body("endfor")
	}
	p.wantWord("endfor")
	p.blockEnd()
	return n
}

func (p *parser) setStatement() node {
	t := p.target(true)
	if p.op("=") {
		n := &setNode{t, p.tuple(false)}
		p.blockEnd()
		return n
	}
	n := &setBlockNode{target: t}
	if p.op("|") {
		n.filters = p.filters(&filterExpr{e: blockText{}})
	}
	p.blockEnd()
	n.body = p.until("endset")
	p.blockEnd()
	return n
}

// filters reads filters, the | before the first of which has been read, into f.
func (p *parser) filters(f *filterExpr) expr {
	f.name, f.call = p.filterName(), p.arguments()
	for p.op("|") {
		f = &filterExpr{e: f, name: p.filterName(), call: p.arguments()}
	}
	return f
}

func (p *parser) filterName() string {
	name := p.wantKind(tokenName, "a filter").text
	for p.op(".") {
		name += "." + p.wantKind(tokenName, "a filter").text
	}
	return name
}

// arguments reads those of a filter or a test, if there are any.
func (p *parser) arguments() *callExpr {
	if p.op("(") {
		return p.call(nil)
	}
	return &callExpr{}
}

// target reads what is assigned to; without several, one thing.
func (p *parser) target(several bool) target {
	defer p.deeper()()
	var parts []target
	comma := false
	for p.err == nil {
		if several && p.op("(") {
			parts = append(parts, p.target(true))
			p.wantOp(")")
		} else {
			t := target{name: p.wantKind(tokenName, "a name").text}
			if p.op(".") {
				t.attr = p.wantKind(tokenName, "an attribute").text
			}
			parts = append(parts, t)
		}
		if !several || !p.op(",") {
			break
		}
		comma = true
		if t := p.peek(); t.kind != tokenName || t.text == "in" {
			break
		}
	}
	if len(parts) == 1 && !comma {
		return parts[0]
	}
	return target{parts: parts}
}

// signature reads a macro's parameters.
func (p *parser) signature(m *macro) {
	p.wantOp("(")
	for !p.op(")") && p.err == nil {
		if len(m.params) > 0 {
			p.wantOp(",")
		}
		m.params = append(m.params, p.wantKind(tokenName, "a parameter").text)
		if p.op("=") {
			m.defaults = append(m.defaults, p.expression())
		} else if len(m.defaults) > 0 {
			p.fail("parameter without a default after one with")
		}
	}
}

// tuple reads an expression, or several with commas. Where a loop's "if" may
// follow, an expression has no condition.
func (p *parser) tuple(noCondition bool) expr {
	one := p.expression
	if noCondition {
		one = p.or
	}
	e := one()
	if !p.peek().isOp(",") {
		return e
	}
	t := &listExpr{items: []expr{e}, tuple: true}
	for p.op(",") && p.err == nil {
		if k := p.peek().kind; k == tokenBlockEnd || k == tokenOutputEnd || p.peek().isOp(")") {
			break
		}
		t.items = append(t.items, one())
	}
	return t
}

func (p *parser) expression() expr {
	defer p.deeper()()
	e := p.or()
	for p.word("if") && p.err == nil {
		c := &condExpr{cond: p.or(), then: e}
		if p.word("else") {
			c.other = p.expression()
		}
		e = c
	}
	return e
}

func (p *parser) or() expr {
	a := p.and()
	for p.word("or") {
		a = &logicOp{true, a, p.and()}
	}
	return a
}

func (p *parser) and() expr {
	a := p.not()
	for p.word("and") {
		a = &logicOp{false, a, p.not()}
	}
	return a
}

func (p *parser) not() expr {
	if p.word("not") {
		defer p.deeper()()
		return &notExpr{p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	c := &compareExpr{first: p.sum()}
	for p.err == nil {
		t := p.peek()
		switch {
		case t.kind == tokenOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.text), t.isName("in"):
			p.next()
			c.ops = append(c.ops, t.text)
		case t.isName("not") && p.tokens[p.pos+1].isName("in"):
			p.next()
			p.next()
			c.ops = append(c.ops, "not in")
		case len(c.ops) == 0:
			return c.first
		default:
			return c
		}
		c.rest = append(c.rest, p.sum())
	}
	return c
}

// binary reads operands with one of ops between them.
func (p *parser) binary(operand func() expr, ops ...string) expr {
	a := operand()
	for t := p.peek(); t.kind == tokenOp && slices.Contains(ops, t.text); t = p.peek() {
		p.next()
		a = &binaryExpr{t.text, a, operand()}
	}
	return a
}

func (p *parser) sum() expr     { return p.binary(p.concat, "+", "-") }
func (p *parser) product() expr { return p.binary(p.power, "*", "/", "//", "%") }
func (p *parser) power() expr {
	return p.binary(func() expr { return p.unary(true) }, "**")
}

func (p *parser) concat() expr {
	a := p.product()
	if !p.peek().isOp("~") {
		return a
	}
	c := &concatExpr{parts: []expr{a}}
	for p.op("~") {
		c.parts = append(c.parts, p.product())
	}
	return c
}

func (p *parser) unary(withFilter bool) expr {
	defer p.deeper()()
	var e expr
	switch {
	case p.op("-"):
		e = &unaryExpr{"-", p.unary(false)}
	case p.op("+"):
		e = &unaryExpr{"+", p.unary(false)}
	default:
		e = p.primary()
	}
	e = p.postfix(e)
	if !withFilter {
		return e
	}
	for p.err == nil {
		switch {
		case p.op("|"):
			e = &filterExpr{e: e, name: p.filterName(), call: p.arguments()}
		case p.word("is"):
			e = p.test(e)
		case p.op("("):
			e = p.call(e)
		default:
			return e
		}
	}
	return e
}

func (p *parser) test(e expr) expr {
	t := &testExpr{e: e, negate: p.word("not")}
	t.name = p.wantKind(tokenName, "a test").text
	t.call = &callExpr{}
	next := p.peek()
	switch {
	case p.op("("):
		t.call = p.call(nil)
	case next.isName("else"), next.isName("or"), next.isName("and"):
	case next.isName("is"):
		p.fail("tests cannot be chained")
	case next.kind == tokenName, next.kind == tokenString, next.kind == tokenInt, next.kind == tokenFloat,
		next.isOp("["), next.isOp("{"):
		t.call.args = []expr{p.postfix(p.primary())}
	}
	return t
}

func (p *parser) postfix(e expr) expr {
	for p.err == nil {
		switch {
		case p.op("."):
			switch t := p.next(); t.kind {
			case tokenName:
				e = &attrExpr{e, t.text}
			case tokenInt:
				e = &itemExpr{e, p.integer(t)}
			default:
				p.fail("unexpected %s, want an attribute", t)
			}
		case p.op("["):
			e = p.subscript(e)
		case p.op("("):
			e = p.call(e)
		default:
			return e
		}
	}
	return e
}

func (p *parser) subscript(e expr) expr {
	if !p.peek().isOp(":") {
		key := p.expression()
		if p.op("]") {
			return &itemExpr{e, key}
		}
		return p.slice(&sliceExpr{e: e, from: key})
	}
	return p.slice(&sliceExpr{e: e})
}

// slice reads what follows the first bound.
func (p *parser) slice(s *sliceExpr) expr {
	for _, bound := range []*expr{&s.to, &s.step} {
		if !p.op(":") {
			break
		}
		if !p.peek().isOp(":") && !p.peek().isOp("]") {
			*bound = p.expression()
		}
	}
	p.wantOp("]")
	return s
}

// call reads the arguments of f, after their (.
func (p *parser) call(f expr) *callExpr {
	c := &callExpr{f: f}
	p.items(")", func() {
		if t := p.peek(); t.kind == tokenName && p.tokens[p.pos+1].isOp("=") {
			p.next()
			p.next()
			c.keys = append(c.keys, t.text)
		} else if len(c.keys) > 0 {
			p.fail("argument without a name after one with")
		}
		c.args = append(c.args, p.expression())
	})
	return c
}

func (p *parser) integer(t token) expr {
	v, err := strconv.ParseInt(t.text, 10, 64)
	if err != nil {
		p.fail("number %s is too large", t.text)
	}
	return constExpr{v}
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case tokenName:
		switch t.text {
		case "true", "True":
			return constExpr{true}
		case "false", "False":
			return constExpr{false}
		case "none", "None":
			return constExpr{nil}
		}
		return &nameExpr{t.text}
	case tokenString:
		s := t.text
		for p.peek().kind == tokenString {
			s += p.next().text
		}
		return constExpr{s}
	case tokenInt:
		return p.integer(t)
	case tokenFloat:
		v, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			p.fail("number %s is too large", t.text)
		}
		return constExpr{v}
	case tokenOp:
		switch t.text {
		case "(":
			if p.op(")") {
				return &listExpr{tuple: true}
			}
			e := p.tuple(false)
			p.wantOp(")")
			return e
		case "[":
			l := &listExpr{}
			p.items("]", func() { l.items = append(l.items, p.expression()) })
			return l
		case "{":
			d := &dictExpr{}
			p.items("}", func() {
				d.keys = append(d.keys, p.expression())
				p.wantOp(":")
				d.values = append(d.values, p.expression())
			})
			return d
		}
	}
	p.pos--
	p.fail("unexpected %s", t)
	return constExpr{nil}
}

// items calls item for each of those up to end, with commas between them.
func (p *parser) items(end string, item func()) {
	for first := true; !p.op(end) && p.err == nil; first = false {
		if !first {
			p.wantOp(",")
			if p.op(end) {
				return
			}
		}
		item()
	}
}

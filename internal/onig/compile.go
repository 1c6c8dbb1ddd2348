package onig

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// op is what an instruction does.
type op uint8

const (
	opText    op = iota // str comes next
	opSet               // a character of table comes next
	opRun               // min to max characters of table, as many as possible first
	opRunLazy           // as few as possible first
	opRunAll            // as many as possible and not fewer
	opSplit             // go on at to, and if that fails at or
	opJump              // go on at to
	opZero              // reg = 0
	opCount             // reg < min: repeat; reg = max: go on at to; else one, then the other
	opAdd               // reg += 1
	opMark              // reg = here
	opMoved             // if reg is here go on at to
	opSave              // reg and the one after it = the bounds of a group that began at from
	opBackref           // what one of the groups at regs has matched comes next
	opAnchor            // the place anchor
	opKeep              // the match begins here
	opAtomic            // the program up to to, once
	opLook              // look: the program up to to, min to max characters behind
	opDone              // the program, or a part of it, has matched
)

// inst is an instruction; its op says which fields it has.
type inst struct {
	op        op
	anchor    anchor
	lazy      bool
	to, or    int // addresses
	reg, from int // registers
	min, max  int
	table     *table
	str       string
	regs      []int
	look      *look
}

// Regexp is a compiled pattern. Its methods may be called from several
// goroutines at once.
type Regexp struct {
	pattern string
	prog    []inst
	regs    int       // registers: two for each group, then counters and marks
	first   *table    // what a match begins with, nil: it may be empty
	run     *Run      // the pattern as a run, if it is one
	pool    sync.Pool // of *matcher
}

// Compile returns a pattern's program. Its error does not repeat the pattern.
func Compile(pattern string) (*Regexp, error) {
	root, err := parse(pattern)
	if err != nil {
		return nil, err
	}
	c := &compiler{re: &Regexp{pattern: pattern}, tables: map[string]*table{}, referred: map[int]int{}}
	anyNode(root, func(n node) bool {
		if b, ok := n.(*backref); ok {
			for _, g := range b.groups {
				if _, ok := c.referred[g]; !ok {
					c.referred[g] = c.register()
					c.register()
				}
			}
		}
		return false
	})
	if c.re.run = c.runOf(root); c.re.run != nil {
		return c.re, nil
	}
	c.node(root, false)
	c.emit(inst{op: opDone})
	if c.err != nil {
		return nil, c.err
	}
	if s, mayBeEmpty := first(root); !mayBeEmpty {
		c.re.first = newTable(s)
	}
	return c.re, nil
}

// compiler turns a tree into a program.
type compiler struct {
	re       *Regexp
	tables   map[string]*table // by the set's bounds: equal sets share one
	key      []byte            // of the last
	referred map[int]int       // groups that a back-reference names → register
	err      error
}

func (c *compiler) emit(i inst) int {
	c.re.prog = append(c.re.prog, i)
	return len(c.re.prog) - 1
}

// here returns the address of the next instruction.
func (c *compiler) here() int { return len(c.re.prog) }

func (c *compiler) register() int {
	c.re.regs++
	return c.re.regs - 1
}

func (c *compiler) table(s set) *table {
	c.key = c.key[:0]
	for _, x := range s {
		c.key = binary.AppendUvarint(binary.AppendUvarint(c.key, uint64(x.lo)), uint64(x.hi-x.lo))
	}
	t, ok := c.tables[string(c.key)]
	if !ok {
		t = newTable(s)
		c.tables[string(c.key)] = t
	}
	return t
}

// node emits n; behind: inside a look-behind.
func (c *compiler) node(n node, behind bool) {
	switch n := n.(type) {
	case empty:
	case *text:
		if n.fold {
			c.node(foldString(n.runes, behind), behind)
			return
		}
		c.emit(inst{op: opText, str: string(n.runes)})
	case class:
		c.emit(inst{op: opSet, table: c.table(n.set)})
	case cat:
		for _, part := range joinTexts(n) {
			c.node(part, behind)
		}
	case alt:
		c.alternatives(n, behind)
	case *quant:
		c.repeat(n, behind)
	case scoped:
		c.node(n.body, behind)
	case *group:
		reg, ok := c.referred[n.number]
		if !ok {
			c.node(n.body, behind)
			return
		}
		if behind {
			c.fail("a group in a look-behind that a back-reference names")
		}
		start := c.register() // the group's bounds change together, at its end
		c.emit(inst{op: opMark, reg: start})
		c.node(n.body, behind)
		c.emit(inst{op: opSave, reg: reg, from: start})
	case atomic:
		c.atomic(n, behind)
	case *look:
		c.look(n, behind)
	case anchor:
		if behind && (n == textEnd || n == lastLineEnd) {
			c.fail(`\z or \Z in a look-behind`)
		}
		c.emit(inst{op: opAnchor, anchor: n})
	case *backref:
		if behind {
			c.fail("a back-reference in a look-behind")
		}
		regs := make([]int, len(n.groups))
		for i, g := range n.groups {
			regs[i] = c.referred[g]
		}
		c.emit(inst{op: opBackref, regs: regs})
	case keep:
		if behind {
			c.fail(`\K in a look-behind`)
		}
		c.emit(inst{op: opKeep})
	default:
		panic(fmt.Sprintf("onig: node %T", n))
	}
}

func (c *compiler) fail(what string) {
	if c.err == nil {
		c.err = fmt.Errorf("%s is not supported", what)
	}
}

// joinTexts joins neighbouring texts: those whose case does not matter may be
// one character together.
func joinTexts(parts cat) cat {
	var out cat
	for _, n := range parts {
		if t, ok := n.(*text); ok && len(out) > 0 {
			if last, ok := out[len(out)-1].(*text); ok && last.fold == t.fold {
				out[len(out)-1] = &text{append(last.runes[:len(last.runes):len(last.runes)], t.runes...), t.fold}
				continue
			}
		}
		out = append(out, n)
	}
	return out
}

// alternatives emits a split for each alternative but the last. Those of one
// character each are one set.
func (c *compiler) alternatives(n alt, behind bool) {
	if s, ok := oneCharacter(n); ok {
		c.node(class{s}, behind)
		return
	}
	var ends []int
	for i, part := range n {
		if i == len(n)-1 {
			c.node(part, behind)
			break
		}
		split := c.emit(inst{op: opSplit})
		c.re.prog[split].to = c.here()
		c.node(part, behind)
		ends = append(ends, c.emit(inst{op: opJump}))
		c.re.prog[split].or = c.here()
	}
	for _, e := range ends {
		c.re.prog[e].to = c.here()
	}
}

// oneCharacter returns the set that n matches one character of, if it does.
func oneCharacter(n node) (set, bool) {
	switch n := n.(type) {
	case class:
		return n.set, true
	case *text:
		if len(n.runes) == 1 && !n.fold {
			return setOf(n.runes...), true
		}
	case scoped:
		return oneCharacter(n.body)
	case cat:
		if len(n) == 1 {
			return oneCharacter(n[0])
		}
	case alt:
		var spans set
		for _, part := range n {
			s, ok := oneCharacter(part)
			if !ok {
				return nil, false
			}
			spans = append(spans, s...)
		}
		return spans.normal(), true
	}
	return nil, false
}

// single is oneCharacter of what a repeat repeats; of a letter whose case does
// not matter too.
func single(n node, behind bool) (set, bool) {
	if t, ok := n.(*text); ok && t.fold && len(t.runes) == 1 {
		return oneCharacter(foldString(t.runes, behind))
	}
	return oneCharacter(n)
}

// repeat emits a repeat.
func (c *compiler) repeat(q *quant, behind bool) {
	if s, ok := single(q.body, behind); ok {
		run := inst{op: opRun, min: q.min, max: q.max, table: c.table(s)}
		if q.lazy {
			run.op = opRunLazy
		}
		c.emit(run)
		return
	}
	least, _ := length(q.body)
	mark := -1
	if q.max < 0 && least == 0 {
		mark = c.register()
		if anyNode(q.body, c.refers) {
			c.fail("an unlimited repeat of what may be empty, with a back-reference to it or in it,")
		}
	}
	body := func() int { // returns where it leaves the repeat
		if mark < 0 {
			c.node(q.body, behind)
			return -1
		}
		c.emit(inst{op: opMark, reg: mark})
		c.node(q.body, behind)
		return c.emit(inst{op: opMoved, reg: mark})
	}
	switch {
	case q.max == 0:
	case q.min == 0 && q.max == 1:
		split := c.emit(inst{op: opSplit})
		body()
		c.branch(split, split+1, c.here(), q.lazy)
	case q.min == 0 && q.max < 0:
		split := c.emit(inst{op: opSplit})
		leave := body()
		c.emit(inst{op: opJump, to: split})
		c.branch(split, split+1, c.here(), q.lazy)
		c.leave(leave)
	case q.min == 1 && q.max < 0:
		start := c.here()
		leave := body()
		split := c.emit(inst{op: opSplit})
		c.branch(split, start, c.here(), q.lazy)
		c.leave(leave)
	default:
		c.counted(q, body)
	}
}

// branch sets a split to go on with a repeat or to leave it.
func (c *compiler) branch(split, again, leave int, lazy bool) {
	if lazy {
		again, leave = leave, again
	}
	c.re.prog[split].to, c.re.prog[split].or = again, leave
}

func (c *compiler) leave(moved int) {
	if moved >= 0 {
		c.re.prog[moved].to = c.here()
	}
}

// counted emits a repeat with a counter:
//
//	   zero  n
//	L: count n   below min go on; at max leave; else either
//	   add   n
//	   the body
//	   jump  L
func (c *compiler) counted(q *quant, body func() int) {
	n := c.register()
	c.emit(inst{op: opZero, reg: n})
	loop := c.emit(inst{op: opCount, reg: n, min: q.min, max: q.max, lazy: q.lazy})
	c.emit(inst{op: opAdd, reg: n})
	leave := body()
	c.emit(inst{op: opJump, to: loop})
	c.re.prog[loop].to = c.here()
	c.leave(leave)
}

// refers reports whether n is a back-reference or a group that one names.
func (c *compiler) refers(n node) bool {
	if g, ok := n.(*group); ok {
		_, ok := c.referred[g.number]
		return ok
	}
	_, ok := n.(*backref)
	return ok
}

func (c *compiler) atomic(n atomic, behind bool) {
	if q, ok := n.body.(*quant); ok && !q.lazy {
		if s, ok := single(q.body, behind); ok {
			c.emit(inst{op: opRunAll, min: q.min, max: q.max, table: c.table(s)})
			return
		}
	}
	at := c.emit(inst{op: opAtomic})
	c.node(n.body, behind)
	c.emit(inst{op: opDone})
	c.re.prog[at].to = c.here()
}

// look emits a look-around. Oniguruma allows no look-ahead in a look-behind.
func (c *compiler) look(n *look, behind bool) {
	if behind && !n.behind {
		c.fail("a look-ahead in a look-behind")
	}
	if n.behind && n.not && anyNode(n.body, func(n node) bool { _, ok := n.(*group); return ok }) {
		c.fail("a group in a negative look-behind")
	}
	if n.behind && !n.not && anyNode(n.body, func(n node) bool { l, ok := n.(*look); return ok && l.not }) {
		c.fail("a negative look-behind in a look-behind")
	}
	i := inst{op: opLook, look: n}
	if n.behind {
		i.min, i.max = length(n.body)
	}
	at := c.emit(i)
	c.node(n.body, behind || n.behind)
	c.emit(inst{op: opDone})
	c.re.prog[at].to = c.here()
}

// first returns the set of the characters that a match of n may begin with,
// and whether it may be empty.
func first(n node) (s set, mayBeEmpty bool) {
	switch n := n.(type) {
	case class:
		return n.set, false
	case *text:
		if n.fold {
			return first(foldString(n.runes[:min(3, len(n.runes))], false))
		}
		return setOf(n.runes[0]), false
	case cat:
		for _, part := range joinTexts(n) {
			f, empty := first(part)
			if s = s.or(f); !empty {
				return s, false
			}
		}
		return s, true
	case alt:
		for _, part := range n {
			f, empty := first(part)
			s = s.or(f)
			mayBeEmpty = mayBeEmpty || empty
		}
		return s, mayBeEmpty
	case *quant:
		s, mayBeEmpty = first(n.body)
		return s, mayBeEmpty || n.min == 0
	case scoped:
		return first(n.body)
	case *group:
		return first(n.body)
	case atomic:
		return first(n.body)
	case *backref:
		return all, true
	}
	return nil, true
}

// Run returns the pattern as a Run, nil if it is none.
func (re *Regexp) Run() *Run { return re.run }

// String returns the pattern.
func (re *Regexp) String() string { return re.pattern }

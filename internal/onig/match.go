package onig

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// LimitError says that matching was given up.
type LimitError struct {
	Pattern string
	What    string // what there was too much of
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("pattern %s: %s", clip(e.Pattern), e.What)
}

// clip shortens a pattern for an error message.
func clip(pattern string) string {
	const most = 100
	if len(pattern) <= most {
		return fmt.Sprintf("%q", pattern)
	}
	return fmt.Sprintf("%q…", strings.ToValidUTF8(pattern[:most], ""))
}

// maxFrames is how many places to go back to are kept, beside one for every
// four bytes of text: 100 MB.
const maxFrames = 1 << 22

// frame is a place to go back to: an alternative, the shorter forms of a run,
// or the old value of a register.
type frame struct {
	a, b int
	pc   int32 // register of restore
	kind frameKind
}

type frameKind uint8

const (
	branch  frameKind = iota // go on at pc with position a
	shorter                  // run at pc: go on behind it with positions from a down to b
	longer                   // lazy run at pc: take one more at a, of which b may follow
	restore                  // register pc = a
)

// matcher is the state of a match.
type matcher struct {
	re     *Regexp
	s      string
	from   int // where the search began: \G
	end    int // nothing is matched behind this; the text's end but in a look-behind
	stack  []frame
	regs   []int
	steps  *int
	failed string // what there was too much of
}

func (re *Regexp) matcher() *matcher {
	if m, ok := re.pool.Get().(*matcher); ok {
		return m
	}
	return &matcher{re: re, regs: make([]int, re.regs+1)}
}

// release keeps m for a later call, unless its stack has become large.
func (re *Regexp) release(m *matcher) {
	m.s, m.steps = "", nil
	if cap(m.stack) <= 1<<12 {
		re.pool.Put(m)
	}
}

// Each calls f with the bounds of the matches in s, in order and without
// overlap; an empty match right after a match does not count. It takes what it
// needs from steps, one for each instruction and for each eight characters of a
// run, and returns a *LimitError when there are none left.
func (re *Regexp) Each(s string, steps *int, f func(lo, hi int)) error {
	if re.run != nil {
		for lo, hi := re.run.Find(s, 0); lo >= 0; lo, hi = re.run.Find(s, hi) {
			f(lo, hi)
		}
		return nil
	}
	m := re.matcher()
	defer re.release(m)
	m.s, m.end, m.steps, m.failed = s, len(s), steps, ""
	last := -1
	for from := 0; from <= len(s); {
		lo, hi, ok := m.search(from)
		if m.failed != "" {
			return &LimitError{re.pattern, m.failed}
		}
		if !ok {
			return nil
		}
		if lo == hi && lo == last {
			_, n := utf8.DecodeRuneInString(s[from:])
			from += max(n, 1)
			continue
		}
		f(lo, hi)
		last, from = hi, hi
	}
	return nil
}

// search returns the first match at or after from.
func (m *matcher) search(from int) (lo, hi int, ok bool) {
	m.from = from
	for lo = from; lo <= len(m.s); {
		if first := m.re.first; first != nil {
			start := lo
			for lo < len(m.s) {
				r, n := decode(m.s, lo)
				if first.has(r) {
					break
				}
				lo += n
			}
			*m.steps -= (lo - start) >> 3
			if lo == len(m.s) {
				return 0, 0, false
			}
		}
		for i := range m.regs {
			m.regs[i] = -1
		}
		m.stack = m.stack[:0]
		hi, ok = m.run(0, lo, -1)
		if m.failed != "" {
			return 0, 0, false
		}
		if ok {
			if k := m.regs[len(m.regs)-1]; k >= 0 {
				lo = k
			}
			return lo, hi, true
		}
		_, n := decode(m.s, lo)
		lo += max(n, 1)
	}
	return 0, 0, false
}

// decode returns the character at s[i:] and its length.
func decode(s string, i int) (rune, int) {
	if i < len(s) && s[i] < utf8.RuneSelf {
		return rune(s[i]), 1
	}
	return utf8.DecodeRuneInString(s[i:])
}

// back returns where the character before s[i:] begins, as decode reads it: a byte that is
// not UTF-8 is a character.
func back(s string, i int) int {
	if s[i-1] < utf8.RuneSelf {
		return i - 1
	}
	_, size := utf8.DecodeLastRuneInString(s[:i])
	return i - size
}

// run runs the program at pc from position i until it is done, at position
// target if that is not negative, and returns where it ends. What it leaves on
// the stack are old values of registers; if it fails, nothing.
func (m *matcher) run(pc, i, target int) (end int, ok bool) {
	base := len(m.stack)
	s, prog := m.s[:m.end], m.re.prog
	for {
		*m.steps--
		if *m.steps < 0 || len(m.stack) > maxFrames+len(m.s)/4 {
			m.failed = "matching takes too many steps"
			if *m.steps >= 0 {
				m.failed = "matching takes too much memory"
			}
			return 0, false
		}
		in := &prog[pc]
		fits := true
		switch in.op {
		case opText:
			if fits = strings.HasPrefix(s[i:], in.str); fits {
				i += len(in.str)
				pc++
			}
		case opSet:
			r, n := decode(s, i)
			if fits = n > 0 && in.table.has(r); fits {
				i += n
				pc++
			}
		case opRun, opRunAll:
			var least int
			if i, least, fits = m.most(in, i); fits {
				if in.op == opRun && least < i {
					m.stack = append(m.stack, frame{i, least, int32(pc), shorter})
				}
				pc++
			}
		case opRunLazy:
			if i, _, fits = m.most(&inst{table: in.table, min: in.min, max: in.min}, i); fits {
				left := unlimited
				if in.max >= 0 {
					left = in.max - in.min
				}
				if left != 0 {
					m.stack = append(m.stack, frame{i, left, int32(pc), longer})
				}
				pc++
			}
		case opSplit:
			m.stack = append(m.stack, frame{i, 0, int32(in.or), branch})
			pc = in.to
		case opJump:
			pc = in.to
		case opZero:
			m.set(in.reg, 0)
			pc++
		case opAdd:
			m.set(in.reg, m.regs[in.reg]+1)
			pc++
		case opCount:
			again, leave := pc+1, in.to
			switch n := m.regs[in.reg]; {
			case n < in.min:
				pc = again
			case n == in.max:
				pc = leave
			case in.lazy:
				m.stack = append(m.stack, frame{i, 0, int32(again), branch})
				pc = leave
			default:
				m.stack = append(m.stack, frame{i, 0, int32(leave), branch})
				pc = again
			}
		case opMark:
			m.set(in.reg, i)
			pc++
		case opMoved:
			if pc++; m.regs[in.reg] == i {
				pc = in.to
			}
		case opSave:
			m.set(in.reg, m.regs[in.from])
			m.set(in.reg+1, i)
			pc++
		case opBackref:
			if i, fits = m.backref(in.regs, i); fits {
				pc++
			}
		case opAnchor:
			fits = m.at(in.anchor, i)
			pc++
		case opKeep:
			m.set(len(m.regs)-1, i)
			pc++
		case opAtomic:
			if i, fits = m.run(pc+1, i, -1); fits {
				pc = in.to
			}
		case opLook:
			fits = m.look(in, pc+1, i)
			pc = in.to
		case opDone:
			if fits = target < 0 || i == target; fits {
				m.commit(base)
				return i, true
			}
		}
		if m.failed != "" {
			return 0, false
		}
		if !fits {
			if pc, i = m.backtrack(base); pc < 0 {
				return 0, false
			}
		}
	}
}

// set gives a register a value and notes the old one.
func (m *matcher) set(reg, value int) {
	m.stack = append(m.stack, frame{m.regs[reg], 0, int32(reg), restore})
	m.regs[reg] = value
}

// backtrack goes back to the last place left above base, and returns where to
// go on; pc −1 if there is none.
func (m *matcher) backtrack(base int) (pc, i int) {
	for len(m.stack) > base {
		*m.steps--
		top := len(m.stack) - 1
		f := &m.stack[top]
		switch f.kind {
		case branch:
			pc, i = int(f.pc), f.a
			m.stack = m.stack[:top]
			return pc, i
		case shorter:
			f.a = back(m.s, f.a)
			pc, i = int(f.pc)+1, f.a
			if f.a <= f.b {
				m.stack = m.stack[:top]
			}
			return pc, i
		case longer:
			r, n := decode(m.s[:m.end], f.a)
			if n == 0 || !m.re.prog[f.pc].table.has(r) {
				m.stack = m.stack[:top]
				continue
			}
			f.a += n
			f.b--
			pc, i = int(f.pc)+1, f.a
			if f.b == 0 {
				m.stack = m.stack[:top]
			}
			return pc, i
		case restore:
			m.regs[f.pc] = f.a
			m.stack = m.stack[:top]
		}
	}
	return -1, 0
}

// commit drops the places above base; the old values of registers stay, for
// when what comes before is gone back to.
func (m *matcher) commit(base int) {
	kept := m.stack[:base]
	for _, f := range m.stack[base:] {
		if f.kind == restore {
			kept = append(kept, f)
		}
	}
	m.stack = kept
}

// most runs over up to in.max characters of in.table, and returns where they end
// and where the first in.min of them do.
func (m *matcher) most(in *inst, i int) (end, least int, ok bool) {
	s, t, start := m.s[:m.end], in.table, i
	n := 0
	for least = i; n != in.max; n++ {
		if n == in.min {
			least = i
		}
		if i >= len(s) {
			break
		}
		if c := s[i]; c < utf8.RuneSelf {
			if !t.ascii[c] {
				break
			}
			i++
			continue
		}
		r, w := utf8.DecodeRuneInString(s[i:])
		if !t.has(r) {
			break
		}
		i += w
	}
	if n == in.min {
		least = i
	}
	*m.steps -= (i - start) >> 3
	return i, least, n >= in.min
}

func (m *matcher) backref(regs []int, i int) (end int, ok bool) {
	for k := len(regs) - 1; k >= 0; k-- { // of one name the last that matched
		lo, hi := m.regs[regs[k]], m.regs[regs[k]+1]
		if lo >= 0 && strings.HasPrefix(m.s[i:m.end], m.s[lo:hi]) {
			*m.steps -= (hi - lo) >> 3
			return i + hi - lo, true
		}
	}
	return i, false
}

// look reports whether a look-around holds at i.
func (m *matcher) look(in *inst, pc, i int) bool {
	base := len(m.stack)
	found := false
	if !in.look.behind {
		_, found = m.run(pc, i, -1)
	} else {
		start, n := i, 0
		defer func(end int) { m.end = end }(m.end)
		m.end = i
		for ; n < in.min && start > 0; n++ {
			start = back(m.s, start)
		}
		for n >= in.min && !found && m.failed == "" {
			_, found = m.run(pc, start, i)
			if start == 0 || n == in.max {
				break
			}
			start = back(m.s, start)
			n++
		}
	}
	if in.look.not && found { // groups in it match nothing outside
		m.backtrack(base)
	}
	return found != in.look.not
}

// at reports whether position i is such a place.
func (m *matcher) at(a anchor, i int) bool {
	s := m.s
	switch a {
	case lineBegin:
		return i == 0 || i < len(s) && s[i-1] == '\n'
	case lineEnd:
		return i == len(s) || s[i] == '\n'
	case textBegin:
		return i == 0
	case textEnd:
		return i == len(s)
	case lastLineEnd:
		return i == len(s) || i == len(s)-1 && s[i] == '\n'
	case searchBegin:
		return i == m.from
	}
	t := wordTables()[0]
	if a == asciiWordBorder || a == noASCIIWordBorder {
		t = wordTables()[1]
	}
	var before, after bool
	if i > 0 {
		r, _ := utf8.DecodeLastRuneInString(s[:i])
		before = t.has(r)
	}
	if i < len(s) {
		r, _ := decode(s, i)
		after = t.has(r)
	}
	return (before != after) == (a == wordBorder || a == asciiWordBorder)
}

// wordTables are the characters of words: all, and ASCII.
var wordTables = sync.OnceValue(func() [2]*table {
	return [2]*table{newTable(bareWord()), newTable(bareWord().and(ascii))}
})

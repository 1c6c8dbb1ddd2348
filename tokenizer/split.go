package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/crepe-llm/crepe/internal/onig"
)

// stage is one step of the pre-tokenizer. apply cuts text, which is not empty,
// and hands the parts in order to e.run(i, …), the stages from the i-th on;
// first says whether a part begins where the input does.
type stage interface {
	apply(e *encoder, i int, text string, first bool)
}

// finder finds what a simple pattern matches: find returns the first match in s
// that begins at or after from, lo −1 if there is none. Where a match ends the
// search for the next may begin.
type finder interface {
	find(s string, from int) (lo, hi int)
}

func (scan scanner) find(s string, from int) (lo, hi int) {
	for lo = from; lo < len(s); {
		if hi = scan(s, lo); hi > lo {
			return lo, hi
		}
		_, n := utf8.DecodeRuneInString(s[lo:])
		lo += n
	}
	return -1, -1
}

// literal matches a string, which is not empty.
type literal string

func (l literal) find(s string, from int) (lo, hi int) {
	i := strings.Index(s[from:], string(l))
	if i < 0 {
		return -1, -1
	}
	return from + i, from + i + len(l)
}

// oneOf matches single runes of a class.
type oneOf class

func (c oneOf) find(s string, from int) (lo, hi int) {
	t := classes()
	lo = runNot(t, s, from, class(c))
	if lo == len(s) {
		return -1, -1
	}
	_, n := at(t, s, lo)
	return lo, lo + n
}

// runFinder is what DeepSeek's patterns, and others, are: \s?[class]+.
type runFinder struct{ *onig.Run }

func (r runFinder) find(s string, from int) (lo, hi int) { return r.Find(s, from) }

// matcher finds what a pattern matches, with one of the two.
type matcher struct {
	finder
	engine *onig.Regexp
}

// each calls f with the bounds of the matches in s, in order, without overlap.
// The engine takes its steps from the budget.
func (m matcher) each(s string, b *budget, f func(lo, hi int)) error {
	if m.engine != nil {
		return m.engine.Each(s, &b.steps, f)
	}
	for from := 0; ; {
		lo, hi := m.find(s, from)
		if lo < 0 {
			return nil
		}
		f(lo, hi)
		from = hi
	}
}

// behavior says what becomes of matches (delimiters) when text is cut at them.
type behavior uint8

const (
	isolated           behavior = iota // each a part of its own
	removed                            // left out
	mergedWithPrevious                 // joined to the part before
	mergedWithNext                     // joined to the part after
	contiguous                         // neighbouring ones joined to one part
)

// split cuts text at what pattern matches, or with invert at what it does not.
type split struct {
	pattern  matcher
	behavior behavior
	invert   bool
}

func (p split) apply(e *encoder, i int, text string, first bool) {
	if p.behavior == isolated && p.pattern.engine == nil { // nearly all
		p.isolate(e, i, text, first)
		return
	}
	emit := func(lo, hi int) { e.run(i, text[lo:hi], first && lo == 0) }
	switch {
	case p.behavior == isolated:
		p.cover(e, text, func(lo, hi int, _ bool) { emit(lo, hi) })
	case p.behavior == removed:
		p.cover(e, text, func(lo, hi int, match bool) {
			if !match {
				emit(lo, hi)
			}
		})
	case p.behavior == mergedWithNext:
		p.mergeNext(e, text, emit)
	default:
		p.mergePrevious(e, text, emit)
	}
}

func (p split) isolate(e *encoder, i int, text string, first bool) {
	for done := 0; done < len(text); {
		lo, hi := p.pattern.find(text, done)
		if lo < 0 {
			lo, hi = len(text), len(text)
		}
		if done < lo {
			e.run(i, text[done:lo], first && done == 0)
		}
		if lo < hi {
			e.run(i, text[lo:hi], first && lo == 0)
		}
		done = hi
	}
}

// cover calls f with the bounds of the matches and of what lies between them;
// match says which, turned round by invert.
func (p split) cover(e *encoder, text string, f func(lo, hi int, match bool)) {
	done := 0
	err := p.pattern.each(text, &e.budget, func(lo, hi int) {
		if done < lo {
			f(done, lo, p.invert)
		}
		f(lo, hi, !p.invert)
		done = hi
	})
	if err != nil {
		e.fail(fmt.Errorf("pre_tokenizer Split: %w", err))
	}
	if done < len(text) {
		f(done, len(text), p.invert)
	}
}

// mergePrevious is mergedWithPrevious and contiguous: a part waits until it is
// known not to grow.
func (p split) mergePrevious(e *encoder, text string, emit func(lo, hi int)) {
	start, end, before := 0, 0, false // the part that waits; whether it ends in a match
	p.cover(e, text, func(lo, hi int, match bool) {
		grows := match && !before
		if p.behavior == contiguous {
			grows = match == before
		}
		if !grows && end > start {
			emit(start, end)
			start = lo
		}
		end, before = hi, match
	})
	if end > start {
		emit(start, end)
	}
}

// mergeNext is mergedWithNext: a match waits for what follows; of several in a
// row only the last is joined.
func (p split) mergeNext(e *encoder, text string, emit func(lo, hi int)) {
	start, waits := 0, false // a match from start on
	p.cover(e, text, func(lo, hi int, match bool) {
		switch {
		case match:
			if waits && lo > start {
				emit(start, lo)
			}
			start, waits = lo, true
		case waits:
			emit(start, hi)
			waits = false
		default:
			emit(lo, hi)
		}
	})
	if waits && start < len(text) {
		emit(start, len(text))
	}
}

// byteLevel is the pre-tokenizer of that name. The last stage of a
// pre-tokenizer leaves the bytes as they are, since the model's vocabulary is
// turned into bytes once; where other stages follow they see each byte's
// printable stand-in, so stand is set.
type byteLevel struct {
	prefixSpace, cut, stand bool
}

func (p byteLevel) apply(e *encoder, i int, text string, first bool) {
	if p.prefixSpace && text[0] != ' ' {
		text = " " + text
		e.grow(1)
	}
	for at := 0; at < len(text); {
		end := len(text)
		if p.cut {
			end = scanGPT2(text, at)
		}
		part := text[at:end]
		if p.stand {
			part = standIns(part)
			e.grow(len(part) - (end - at))
		}
		e.run(i, part, first && at == 0)
		at = end
	}
}

// metaspace writes spaces as replacement, which it may put before the text
// too, and cuts before each.
type metaspace struct {
	replacement string // one rune
	prepend     prependScheme
	cut         bool
}

type prependScheme uint8

const (
	prependAlways prependScheme = iota
	prependFirst                // only where the input begins
	prependNever
)

func (p metaspace) apply(e *encoder, i int, text string, first bool) {
	before := len(text)
	text = strings.ReplaceAll(text, " ", p.replacement)
	if (p.prepend == prependAlways || p.prepend == prependFirst && first) && !strings.HasPrefix(text, p.replacement) {
		text = p.replacement + text
	}
	e.grow(len(text) - before)
	if !p.cut {
		e.run(i, text, first)
		return
	}
	split{pattern: matcher{finder: literal(p.replacement)}, behavior: mergedWithNext}.apply(e, i, text, first)
}

// breaks cuts before a character that does not follow itself. It stands for no
// pre-tokenizer: it is put last where no merge can cross such a place, so that
// the cache has words to remember where a whole text would be one.
type breaks string

func (b breaks) apply(e *encoder, i int, text string, first bool) {
	start := 0
	for from := 1; from < len(text); {
		j := strings.Index(text[from:], string(b))
		if j < 0 {
			break
		}
		j += from
		if text[j-min(j, len(b)):j] != string(b) {
			e.run(i, text[start:j], first && start == 0)
			start = j
		}
		from = j + len(b)
	}
	e.run(i, text[start:], first && start == 0)
}

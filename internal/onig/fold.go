package onig

// foldString returns what matches runes whatever their case. As many as three
// characters may be one but for case ("ss" and ß); in a look-behind only single
// ones count.
//
// regcomp.c, unravel_case_fold_string, and unicode.c,
// onigenc_unicode_get_case_fold_codes_by_str.
func foldString(runes []rune, behind bool) node {
	t := unicodeTables()
	var out cat
	for len(runes) > 0 {
		n, s, ok := t.sequenceAt(runes)
		switch i, single := t.byChar[runes[0]]; {
		case ok && !behind:
			out = append(out, t.eitherWay(s))
		case single && !behind:
			n = 1
			out = append(out, t.eitherWay(t.sequences[i]))
		case single:
			n = 1
			out = append(out, class{setOf(t.sequences[i].chars...)})
		default:
			n = 1
			out = append(out, class{t.orbit(runes[0])})
		}
		runes = runes[n:]
	}
	return out
}

// sequenceAt returns the longest sequence that runes begin with.
func (t *tables) sequenceAt(runes []rune) (n int, s sequence, ok bool) {
	for n := min(3, len(runes)); n > 1; n-- {
		var key [3]rune
		for i, r := range runes[:n] {
			key[i] = t.fold(r)
		}
		if i, ok := t.byText[key]; ok {
			return n, t.sequences[i], true
		}
	}
	return 0, s, false
}

// eitherWay matches a sequence as one character or as several.
func (t *tables) eitherWay(s sequence) node {
	return alt{class{setOf(s.chars...)}, t.spelled(s)}
}

func (t *tables) spelled(s sequence) node {
	var out cat
	for _, r := range s.folded {
		out = append(out, class{t.orbit(r)})
	}
	return out
}

// foldClass returns what matches a bracket expression whatever the case. The
// characters themselves, before negation, are made up to all that differ in
// case only; those that are several characters match these too, unless negated.
//
// regparse.c, i_apply_case_fold.
func foldClass(s set, not bool) node {
	t := unicodeTables()
	var add []rune
	for r, orbit := range t.orbits {
		if s.has(r) {
			add = append(add, orbit...)
		}
	}
	var spelled []sequence
	for _, q := range t.sequences {
		for _, r := range q.chars {
			if s.has(r) {
				add = append(add, q.chars...)
				spelled = append(spelled, q)
				break
			}
		}
	}
	s = s.or(setOf(add...))
	if not {
		return class{s.not()}
	}
	if spelled == nil {
		return class{s}
	}
	out := alt{class{s}}
	for _, q := range spelled {
		out = append(out, t.spelled(q))
	}
	return out
}

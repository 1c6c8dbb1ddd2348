package onig

// repeatable is false for places: regparse.c, is_invalid_quantifier_target.
func repeatable(n node) bool {
	switch n := n.(type) {
	case anchor, *look, keep:
		return false
	case alt:
		for _, c := range n {
			if !repeatable(c) {
				return false
			}
		}
	}
	return true
}

// repeat returns q, joined with its body where that is a repeat itself.
//
// regparse.c, assign_quantifier_body and onig_reduce_nested_quantifier.
func repeat(q *quant) node {
	inner, ok := q.body.(*quant)
	if !ok {
		return q
	}
	a, b := inner.kind(), q.kind()
	switch {
	case a >= 0 && b < 0: // a limited number of unlimited ones
		if (a == 1 || a == 2) && q.max > 1 && !q.lazy {
			q.max = max(q.min, 1)
		}
		return q
	case a < 0 || b < 0:
		if q.min == q.max && inner.min == inner.max && times(q.min, inner.min) >= 0 {
			return &quant{inner.body, q.min * inner.min, q.min * inner.min, q.lazy}
		}
		return q
	}
	switch joined[a][b] {
	case "keep":
		return q
	case "inner":
		return inner
	case "+ and ??":
		return &quant{&quant{inner.body, 1, unlimited, false}, 0, 1, true}
	default:
		for _, k := range kinds {
			if k.name == joined[a][b] {
				return &quant{inner.body, k.min, k.max, k.lazy}
			}
		}
	}
	panic("onig: no such repeat: " + joined[a][b])
}

// kinds are the common repeats, in the order of joined.
var kinds = []struct {
	name     string
	min, max int
	lazy     bool
}{
	{"?", 0, 1, false}, {"*", 0, unlimited, false}, {"+", 1, unlimited, false},
	{"??", 0, 1, true}, {"*?", 0, unlimited, true}, {"+?", 1, unlimited, true},
}

// joined says what a repeat (row) repeated (column) is: ReduceTypeTable.
var joined = [6][6]string{
	{"inner", "*", "*", "??", "*?", "keep"},
	{"inner", "inner", "inner", "+ and ??", "+ and ??", "inner"},
	{"*", "*", "inner", "keep", "+ and ??", "inner"},
	{"inner", "*?", "*?", "inner", "*?", "*?"},
	{"inner", "inner", "inner", "inner", "inner", "inner"},
	{"keep", "*", "+", "*?", "*?", "inner"},
}

// kind returns the index of q in kinds, −1 if it is none of them.
func (q *quant) kind() int {
	for i, k := range kinds {
		if q.min == k.min && q.max == k.max && q.lazy == k.lazy {
			return i
		}
	}
	return -1
}

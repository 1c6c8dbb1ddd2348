package onig

// Run is a pattern of the shape a?b{1,n}, with sets a and b, of which a? may be
// absent: many patterns of tokenizers are one. It needs no backtracking.
type Run struct {
	lead *table // nil: none
	set  *table
	most int // unlimited: any number
}

// runOf returns the pattern as a run, nil if it is none.
func (c *compiler) runOf(n node) *Run {
	r := &Run{}
	if parts, ok := n.(cat); ok && len(parts) == 2 {
		q, ok := parts[0].(*quant)
		if !ok || q.min != 0 || q.max != 1 || q.lazy {
			return nil
		}
		lead, ok := oneCharacter(q.body)
		if !ok {
			return nil
		}
		r.lead, n = c.table(lead), parts[1]
	}
	r.most = 1
	if q, ok := n.(*quant); ok {
		if q.min != 1 || q.lazy {
			return nil
		}
		r.most, n = q.max, q.body
	}
	s, ok := oneCharacter(n)
	if !ok {
		return nil
	}
	r.set = c.table(s)
	return r
}

// Find returns the first match in s that begins at or after from, lo −1 if
// there is none. It is not empty.
func (r *Run) Find(s string, from int) (lo, hi int) {
	for lo = from; lo < len(s); {
		c, n := decode(s, lo)
		if r.lead != nil && r.lead.has(c) {
			if hi = r.end(s, lo+n); hi > lo+n {
				return lo, hi
			}
		}
		if r.set.has(c) {
			return lo, r.end(s, lo)
		}
		lo += n
	}
	return -1, -1
}

// end returns where the characters of the set at s[i:] end.
func (r *Run) end(s string, i int) int {
	for n := 0; n != r.most && i < len(s); n++ {
		c, w := decode(s, i)
		if !r.set.has(c) {
			break
		}
		i += w
	}
	return i
}

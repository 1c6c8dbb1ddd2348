package tokenizer

import "slices"

// merger holds the working memory of merges.
type merger struct {
	next []pair
	heap []uint64
}

// shortWord is the length in symbols up to which the lowest rank is searched
// for, quadratic but without a queue.
const shortWord = 48

// merge applies the merges of t to ids in place and returns how many are left.
// Among pairs of equal rank the leftmost goes first.
func (s *merger) merge(ids []int32, t *mergeTable) int {
	switch {
	case len(ids) < 2:
		return len(ids)
	case len(ids) <= shortWord:
		return s.mergeShort(ids, t)
	}
	return s.mergeLong(ids, t)
}

// mergeShort keeps the merge of each neighbouring pair and looks for the lowest
// rank in each round.
func (s *merger) mergeShort(ids []int32, t *mergeTable) int {
	next := s.next[:0] // next[i]: merge of ids[i] and ids[i+1]
	for i := range len(ids) - 1 {
		rank, id := t.get(ids[i], ids[i+1])
		next = append(next, pair{rank: rank, id: id})
	}
	s.next = next
	n := len(ids)
	for {
		best, at := uint32(noRank), -1
		for i := range next {
			if next[i].rank < best {
				best, at = next[i].rank, i
			}
		}
		if at < 0 {
			return n
		}
		ids[at] = next[at].id
		copy(ids[at+1:n-1], ids[at+2:n])
		copy(next[at:], next[at+1:])
		n--
		next = next[:n-1]
		if at > 0 {
			next[at-1].rank, next[at-1].id = t.get(ids[at-1], ids[at])
		}
		if at < n-1 {
			next[at].rank, next[at].id = t.get(ids[at], ids[at+1])
		}
	}
}

// mergeLong keeps the pairs in a heap ordered by rank, then position:
// O(n log n). An entry whose pair has meanwhile changed is recognised by its
// rank, which the pair now at that position does not have.
//
// ids itself says where symbols begin: a symbol that has come to fill n ≥ 2
// places has −n in its second and its last. With eight bytes for the pair that
// begins at each place, a text of one word takes twelve bytes a byte.
func (s *merger) mergeLong(ids []int32, t *mergeTable) int {
	s.heap = slices.Grow(s.heap[:0], len(ids))
	for i := range len(ids) - 1 {
		if rank, _ := t.get(ids[i], ids[i+1]); rank != noRank {
			s.heap = append(s.heap, uint64(rank)<<32|uint64(i))
		}
	}
	s.order()
	for len(s.heap) > 0 {
		top := s.pop()
		rank, at := uint32(top>>32), int(uint32(top))
		id, stale := pairAt(ids, t, at, rank)
		if stale {
			continue
		}
		right := after(ids, at)
		end := after(ids, right)
		n := int32(end - at)
		ids[right] = -1
		ids[at], ids[at+1], ids[end-1] = id, -n, -n
		if end < len(ids) {
			s.push(ids, t, at, end)
		}
		if at > 0 {
			s.push(ids, t, before(ids, at), at)
		}
	}
	n := 0
	for _, id := range ids {
		if id >= 0 {
			ids[n] = id
			n++
		}
	}
	return n
}

// after returns where the symbol after the one at i begins, len(ids) if there is
// none.
func after(ids []int32, i int) int {
	if i+1 < len(ids) && ids[i+1] < 0 {
		return i - int(ids[i+1])
	}
	return i + 1
}

// before returns where the symbol before the one at i > 0 begins.
func before(ids []int32, i int) int {
	if ids[i-1] < 0 {
		return i + int(ids[i-1])
	}
	return i - 1
}

// pairAt returns what the pair at i merges to. It is stale if it is not, or no
// longer, one of that rank.
func pairAt(ids []int32, t *mergeTable, i int, rank uint32) (id int32, stale bool) {
	if ids[i] < 0 {
		return 0, true
	}
	right := after(ids, i)
	if right == len(ids) {
		return 0, true
	}
	r, id := t.get(ids[i], ids[right])
	return id, r != rank
}

// order makes s.heap a heap.
func (s *merger) order() {
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
}

// push enters the pair of positions left and right, if it has a merge. Where
// the heap would have to grow, stale entries go first.
func (s *merger) push(ids []int32, t *mergeTable, left, right int) {
	rank, _ := t.get(ids[left], ids[right])
	if rank == noRank {
		return
	}
	if len(s.heap) == cap(s.heap) {
		s.heap = slices.DeleteFunc(s.heap, func(x uint64) bool {
			_, stale := pairAt(ids, t, int(uint32(x)), uint32(x>>32))
			return stale
		})
		s.order()
	}
	s.heap = append(s.heap, 0)
	i := len(s.heap) - 1
	x := uint64(rank)<<32 | uint64(left)
	for i > 0 && s.heap[(i-1)/2] > x {
		s.heap[i] = s.heap[(i-1)/2]
		i = (i - 1) / 2
	}
	s.heap[i] = x
}

func (s *merger) pop() uint64 {
	top := s.heap[0]
	last := len(s.heap) - 1
	s.heap[0] = s.heap[last]
	s.heap = s.heap[:last]
	if last > 0 {
		s.down(0)
	}
	return top
}

// down moves entry i to its place below.
func (s *merger) down(i int) {
	h := s.heap
	x := h[i]
	for {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1] < h[c] {
			c++
		}
		if h[c] >= x {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = x
}

package tokenizer

// merger holds the working memory of merges.
type merger struct {
	next  []pair
	heap  []uint64
	links []link
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

// link chains the symbols that are left: indices of the neighbours, −1 at the
// ends.
type link struct{ prev, next int32 }

const gone = -1 // in place of the id of a symbol merged into its left neighbour

// mergeLong keeps the pairs in a heap ordered by rank, then position:
// O(n log n). An entry whose pair has meanwhile changed is recognised by its
// rank, which the pair now at that position does not have.
func (s *merger) mergeLong(ids []int32, t *mergeTable) int {
	s.heap = s.heap[:0]
	s.links = s.links[:0]
	for i := range ids {
		s.links = append(s.links, link{int32(i - 1), int32(i + 1)})
		if i+1 < len(ids) {
			if rank, _ := t.get(ids[i], ids[i+1]); rank != noRank {
				s.heap = append(s.heap, uint64(rank)<<32|uint64(i))
			}
		}
	}
	s.links[len(ids)-1].next = -1
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
	for len(s.heap) > 0 {
		top := s.pop()
		rank, at := uint32(top>>32), int32(uint32(top))
		right := s.links[at].next
		if ids[at] == gone || right < 0 {
			continue
		}
		r, id := t.get(ids[at], ids[right])
		if r != rank {
			continue
		}
		ids[at], ids[right] = id, gone
		after := s.links[right].next
		s.links[at].next = after
		if after >= 0 {
			s.links[after].prev = at
			s.push(ids, t, at, after)
		}
		if prev := s.links[at].prev; prev >= 0 {
			s.push(ids, t, prev, at)
		}
	}
	n := 0
	for _, id := range ids {
		if id != gone {
			ids[n] = id
			n++
		}
	}
	return n
}

// push enters the pair of positions left and right, if it has a merge.
func (s *merger) push(ids []int32, t *mergeTable, left, right int32) {
	rank, _ := t.get(ids[left], ids[right])
	if rank == noRank {
		return
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

package model

// Reader reads blocks in their order. With Options.Ahead the next one is read while the
// caller works on the one that it has.
type Reader struct {
	m        *Model
	next, to int
	coming   chan reading // of block next; nil: nobody reads it
}

// reading is a block that was read, or what came of it.
type reading struct {
	block  *Block
	err    error
	caught any // of a panic
}

// Read returns a Reader of the blocks from, …, to−1. It is to be closed.
func (m *Model) Read(from, to int) *Reader { return &Reader{m: m, next: from, to: to} }

// Next returns the next block, which is the caller's to Release. With Options.Ahead the
// one before is to be released by then, or there are three in memory.
func (r *Reader) Next() (*Block, error) {
	if r.coming == nil {
		r.begin()
	}
	got := <-r.coming
	r.coming = nil
	if got.caught != nil {
		panic(got.caught)
	}
	if got.err != nil {
		return nil, got.err
	}
	if r.next++; r.next < r.to && r.m.opt.Ahead {
		r.begin()
	}
	return got.block, nil
}

// begin reads block next.
func (r *Reader) begin() {
	i, coming := r.next, make(chan reading, 1)
	r.coming = coming
	go func() {
		var got reading
		defer func() {
			got.caught = recover()
			coming <- got
		}()
		got.block, got.err = r.m.LoadBlock(i)
	}()
}

// Close gives up what is being read.
func (r *Reader) Close() {
	if r.coming == nil {
		return
	}
	if got := <-r.coming; got.block != nil {
		got.block.Release()
	}
	r.coming = nil
}

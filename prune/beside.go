package prune

// beside does work in order, beside what its owner does meanwhile. The zero value has none.
type beside struct {
	todo chan func() error
	done chan error // the first error
}

// waiting is how much work may wait for its turn: more than a block has Linears.
const waiting = 4096

// do has f done after all before, unless one of them failed.
func (b *beside) do(f func() error) {
	if b.todo == nil {
		b.todo, b.done = make(chan func() error, waiting), make(chan error, 1)
		go func(todo chan func() error, done chan error) {
			var err error
			for f := range todo {
				if err == nil {
					err = f()
				}
			}
			done <- err
		}(b.todo, b.done)
	}
	b.todo <- f
}

// wait waits for all that do took, and returns the first error.
func (b *beside) wait() error {
	if b.todo == nil {
		return nil
	}
	close(b.todo)
	err := <-b.done
	*b = beside{}
	return err
}

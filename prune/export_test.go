package prune

// SaveAlways makes runs keep the hidden states of every block, however soon the next
// follows.
func SaveAlways() (restore func()) {
	before := saveEvery
	saveEvery = 0
	return func() { saveEvery = before }
}

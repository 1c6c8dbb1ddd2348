package pages

import (
	"bytes"
	"testing"
)

// Memory of any size is what it was.
func TestAdviseChangesNothing(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 2*size - 1, 2 * size, 3*size + 5, 9*size + 4096} {
		b := bytes.Repeat([]byte{7}, n)
		Advise(b)
		if n > 1 {
			Advise(b[1:])
		}
		if !bytes.Equal(b, bytes.Repeat([]byte{7}, n)) {
			t.Errorf("%d bytes: changed", n)
		}
	}
}

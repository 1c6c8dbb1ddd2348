// Package pages asks the system for large pages where much memory is read once: the
// weights of a decode step are more than the processor keeps addresses of in pages of
// 4 KiB.
package pages

import "unsafe"

// size is that of a large page, on the systems that are asked.
const size = 2 << 20

// Advise says that b should lie in large pages. It asks for those that lie in b as a
// whole, so that nothing grows, and that b is as good without them. b must be as
// large as some of them, and not yet written, for it to be of use.
func Advise(b []byte) {
	if len(b) < 2*size {
		return
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	first := -at & (size - 1)
	if whole := (uintptr(len(b)) - first) &^ (size - 1); whole > 0 {
		advise(b[first : first+whole])
	}
}

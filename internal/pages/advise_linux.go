package pages

import "golang.org/x/sys/unix"

// advise ignores the error: a kernel without large pages has none to give.
func advise(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

package driver

import (
	"sync"
)

// staging is host memory that bytes pass on their way to the device or back: what the
// device reads at full speed must be pinned.
type staging struct {
	mu     sync.Mutex
	pieces [4]Shared
	busy   [4]Event // 0: nothing uses it
	next   int
}

const stagingBytes = 8 << 20

func (s *staging) open(d *Device) error {
	for i := range s.pieces {
		m, err := d.host.share(stagingBytes)
		if err != nil {
			return err
		}
		if err := d.try(cuMemHostRegister, m.there, stagingBytes, 0); err != nil {
			return err
		}
		s.pieces[i] = m
	}
	return nil
}

// take returns the next piece, once nothing uses it.
func (s *staging) take(d *Device) int {
	i := s.next
	s.next = (i + 1) % len(s.pieces)
	s.free(d, i)
	return i
}

func (s *staging) free(d *Device, i int) {
	if e := s.busy[i]; e != 0 {
		d.Wait(e)
		d.Drop(e)
		s.busy[i] = 0
	}
}

// Upload copies src to dst, in the order of stream s, Main or Aside. src may be changed at
// once.
func (d *Device) Upload(s Stream, dst Pointer, src []byte) {
	by := &d.up
	if s == d.Aside {
		by = &d.aside
	}
	for len(src) > 0 {
		n := by.send(d, s, dst, src)
		dst += Pointer(n)
		src = src[n:]
	}
}

// send copies what of src fits a piece. Others may come between two of a goroutine's.
func (s *staging) send(d *Device, to Stream, dst Pointer, src []byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.take(d)
	n := copy(s.pieces[i].Data, src)
	d.post(cuMemcpyHtoDAsync, uint64(dst), s.pieces[i].there, uint64(n), uint64(to))
	s.busy[i] = d.Record(to)
	return n
}

// Download copies src to dst once all that was posted to s before is done.
func (d *Device) Download(s Stream, dst []byte, src Pointer) {
	d.down.mu.Lock()
	defer d.down.mu.Unlock()
	type part struct {
		piece int
		to    []byte
	}
	var under []part // way
	finish := func() {
		p := under[0]
		under = under[1:]
		d.down.free(d, p.piece)
		copy(p.to, d.down.pieces[p.piece].Data)
	}
	for len(dst) > 0 {
		if len(under) == len(d.down.pieces) {
			finish()
		}
		i := d.down.take(d)
		n := min(len(dst), stagingBytes)
		d.post(cuMemcpyDtoHAsync, d.down.pieces[i].there, uint64(src), uint64(n), uint64(s))
		d.down.busy[i] = d.Record(s)
		under = append(under, part{i, dst[:n]})
		dst, src = dst[n:], src+Pointer(n)
	}
	for len(under) > 0 {
		finish()
	}
	d.must(0)
}

package engine

// Own is what an Engine may also have: memory of its own, apart from the program's, in
// which all Mats, Ops, Caches and Stats lie.
type Own interface {
	Memory() int64 // bytes of it that the program may hold in all
}

// OwnMemory returns Own.Memory of e; false: e computes in the program's memory.
func OwnMemory(e Engine) (bytes int64, separate bool) {
	o, separate := e.(Own)
	if separate {
		bytes = o.Memory()
	}
	return bytes, separate
}

// Freer is what an Op may also be: one whose memory is given back at once when nothing
// uses it any more, and not when that is found out. It must not be used afterwards.
type Freer interface {
	Free()
}

// Free frees op if it is a Freer.
func Free(op Op) {
	if f, ok := op.(Freer); ok {
		f.Free()
	}
}

// Place says where activations are kept while nothing computes with them. The zero Place
// is the engine's memory.
type Place struct {
	Host bool   // the program's memory; of an engine without memory of its own the same
	Dir  string // a file in that folder, if not empty
}

// PlaceFor returns a Place for that many bytes: e's memory if own bytes of it suffice,
// else the program's if host do, else a file in dir. Of an engine without memory of its
// own only host counts.
func PlaceFor(e Engine, bytes, own, host int64, dir string) Place {
	_, separate := e.(Own)
	switch {
	case separate && bytes <= own:
		return Place{}
	case bytes <= host:
		return Place{Host: separate}
	}
	return Place{Dir: dir}
}

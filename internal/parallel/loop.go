package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A loop is shared by its caller and helpers: goroutines that, when they have finished
// one loop, look out for the next for a while. Decoding makes thousands of short loops a
// second, and to wake a thread takes as long as such a loop.
type loop struct {
	f              func(lo, hi int)
	n, grain, runs int

	next   atomic.Int64  // the run that is handed out next
	state  atomic.Int64  // seats that are free, in units of seat, + helpers at work, + asleep
	woken  chan struct{} // set before asleep
	once   sync.Once
	caught any
}

const (
	seat   = 1 << 20
	asleep = 1 << 60 // the caller waits for woken
)

var (
	// offered is the loop that idle helpers take part in, nil if there is none. It gives
	// way to another only when it has no free seat.
	offered atomic.Pointer[loop]
	// idle is how many helpers look out.
	idle atomic.Int64
)

// open lets so many helpers take part: those who are idle, and new ones.
func (l *loop) open(helpers int) {
	l.state.Store(int64(helpers) * seat)
	if offered.CompareAndSwap(nil, l) {
		// A helper that gives up looks once more after it has ceased to count as idle, so
		// whoever is counted here sees the offer.
		helpers -= int(min(idle.Load(), int64(helpers)))
	}
	for range helpers {
		go l.help()
	}
}

// help takes part in l, and in what is offered afterwards.
func (l *loop) help() {
	for l != nil {
		if l.join() {
			l.work()
			if l.state.Add(-1) == asleep {
				l.woken <- struct{}{}
			}
		}
		l = lookOut()
	}
}

// join takes a free seat, if there is one.
func (l *loop) join() bool {
	for {
		s := l.state.Load()
		free := (s &^ asleep) / seat
		if free == 0 {
			return false
		}
		if l.state.CompareAndSwap(s, s-seat+1) {
			if free == 1 {
				offered.CompareAndSwap(l, nil)
			}
			return true
		}
	}
}

// work takes runs until there are no more.
func (l *loop) work() {
	defer func() {
		if r := recover(); r != nil {
			l.once.Do(func() { l.caught = r })
			l.next.Store(int64(l.runs)) // nobody starts another run
		}
	}()
	for {
		i := int(l.next.Add(1)) - 1
		if i >= l.runs {
			return
		}
		l.f(i*l.grain, min((i+1)*l.grain, l.n))
	}
}

// wait closes the loop to further helpers and returns when those at work have finished.
func (l *loop) wait() {
	for s := l.state.Load(); s >= seat && !l.state.CompareAndSwap(s, s%seat); s = l.state.Load() {
	}
	offered.CompareAndSwap(l, nil)
	if spin(func() bool { return l.state.Load() == 0 }) {
		return
	}
	l.woken = make(chan struct{}, 1)
	if l.state.Add(asleep) != asleep {
		<-l.woken
	}
}

// lookOut returns the next loop that is offered, nil if there is none for a while. No
// more helpers look out than could run at a time.
func lookOut() (l *loop) {
	if idle.Add(1) < int64(runtime.GOMAXPROCS(0)) {
		spin(func() bool { l = offered.Load(); return l != nil })
	}
	idle.Add(-1)
	if l == nil {
		l = offered.Load()
	}
	return l
}

// spin asks done for some 50 µs, or until it is true, and returns whether it is. Other
// goroutines are let through every now and then.
func spin(done func() bool) bool {
	for range 200 {
		for range 64 {
			if done() {
				return true
			}
		}
		runtime.Gosched()
	}
	return false
}

// Package cuda is the engine on an NVIDIA card. Activations and weights lie in the
// card's memory; products are cuBLASLt's, everything else is this package's kernels
// (kernels/*.cu), which package driver loads at run time. What is posted runs in order
// on one queue of the card, so results are the same in every run on the same card.
//
// Sums of products are float32, of statistics float64.
package cuda

import (
	_ "embed"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
	"github.com/crepe-llm/crepe/tensor"
)

//go:embed kernels/kernels.ptx
var code []byte

// Device is a card that is open. Engines of both kinds of engine.Compute share one.
type Device struct {
	*driver.Device
	limit int64 // of bytes taken; 0: none

	mu     sync.Mutex
	spare  map[int64][]driver.Pointer // by size
	left   map[int64][]leftWeight     // by size: for weights, which are not copied on Main
	idle   int64                      // bytes of both
	taken  int64                      // bytes, spare ones included
	gained int64                      // bytes taken since the last garbage collection
}

// Options of Open.
type Options struct {
	Number int   // of the device, from 0 on
	Memory int64 // bytes of its memory that may be taken; 0: what is free
}

// Open opens a device. An error says what is missing or too old, and what to do.
func Open(opt Options) (*Device, error) {
	d, err := driver.Open(opt.Number, code)
	if err != nil {
		return nil, err
	}
	return &Device{Device: d, limit: opt.Memory, spare: map[int64][]driver.Pointer{}, left: map[int64][]leftWeight{}}, nil
}

// roomFor returns the size that n bytes are taken in: few different ones, so that what
// is given back fits what is asked for, and for much memory little more than n.
func roomFor(n int64) int64 {
	const most = 4 << 20
	step := int64(512)
	for n > 16*step && step < most {
		step *= 2
	}
	return (n + step - 1) / step * step
}

// take returns n bytes of any content. It panics with an engine.Failure if there are none.
func (d *Device) take(n int64) driver.Pointer {
	size := roomFor(max(n, 1))
	if p, ok := d.reuse(size); ok {
		return p
	}
	p, err := d.alloc(size)
	if err == driver.ErrMemory {
		// What nothing refers to any more is known after a collection; its memory is
		// given back by cleanups, which run soon after.
		for range 3 {
			runtime.GC()
			runtime.Gosched()
			d.trim()
			if p, err = d.alloc(size); err == nil {
				break
			}
		}
	}
	switch err {
	case nil:
		return p
	case driver.ErrMemory:
		panic(&engine.Failure{Err: d.lacks(size)})
	}
	panic(d.Failed(err))
}

// lacks says that there are no size bytes more.
func (d *Device) lacks(size int64) error {
	free, total, _ := d.MemoryInfo()
	d.mu.Lock()
	taken := d.taken - d.idle
	d.mu.Unlock()
	return fmt.Errorf("%s: %w: %s more are needed, crepe holds %s, %s of %s are free%s; fewer or shorter sequences take less",
		d.Info.Name, driver.ErrMemory, gigabytes(size), gigabytes(taken), gigabytes(free), gigabytes(total), d.limitText())
}

func (d *Device) limitText() string {
	if d.limit == 0 {
		return ""
	}
	return fmt.Sprintf(", and crepe may hold %s", gigabytes(d.limit))
}

func gigabytes(n int64) string { return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30)) }

func (d *Device) reuse(size int64) (driver.Pointer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.spare[size]
	if len(list) == 0 {
		return 0, false
	}
	p := list[len(list)-1]
	d.spare[size] = list[:len(list)-1]
	d.idle -= size
	return p, true
}

func (d *Device) alloc(size int64) (driver.Pointer, error) {
	d.mu.Lock()
	collect := d.gained > d.Info.Memory/8
	over := d.limit > 0 && d.taken+size > d.limit
	if collect {
		d.gained = 0
	}
	d.mu.Unlock()
	if over {
		return 0, driver.ErrMemory
	}
	if collect {
		runtime.GC() // it does not know what its small objects hold of the device
		if p, ok := d.reuse(size); ok {
			return p, nil
		}
	}
	p, err := d.Alloc(size)
	if err == nil {
		d.mu.Lock()
		d.taken += size
		d.gained += size
		d.mu.Unlock()
	}
	return p, err
}

// give takes back what take returned for n bytes. What was posted before may still use it.
func (d *Device) give(p driver.Pointer, n int64) {
	size := roomFor(max(n, 1))
	d.mu.Lock()
	d.spare[size] = append(d.spare[size], p)
	d.idle += size
	d.mu.Unlock()
}

// trim gives the memory that nothing uses back to the driver.
func (d *Device) trim() {
	d.Sync(d.Main)
	d.Sync(d.Aside)
	d.mu.Lock()
	defer d.mu.Unlock()
	for size, list := range d.spare {
		for _, p := range list {
			d.Free(p)
			d.taken -= size
		}
	}
	for size, list := range d.left {
		for _, w := range list {
			if w.until != 0 {
				d.Drop(w.until)
			}
			d.Free(w.at)
			d.taken -= size
		}
	}
	clear(d.spare)
	clear(d.left)
	d.idle = 0
}

// buffer is memory of the device that lives as long as something refers to it.
type buffer struct {
	at driver.Pointer
	n  int64
}

func (d *Device) buffer(n int64) *buffer {
	b := &buffer{d.take(n), n}
	at := b.at
	runtime.AddCleanup(b, func(n int64) { d.give(at, n) }, n)
	return b
}

// Engine computes on a Device.
type Engine struct {
	*Device
	compute engine.Compute
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine on d. With engine.BF16 what enters products with bfloat16
// weights, queries, keys, values and attention's weights are rounded to bfloat16.
func New(d *Device, c engine.Compute) *Engine { return &Engine{d, c} }

// ID names the card, how many multiprocessors it has, which decides how products are cut,
// and the version of cuBLASLt: "cuda/sm90x132/cublaslt-13.1.0+bf16".
func (e *Engine) ID() string {
	id := fmt.Sprintf("cuda/sm%dx%d/cublaslt-%s", e.Info.Capability, e.Info.Multiprocessors, e.Info.Blas)
	if e.compute == engine.BF16 {
		id += "+bf16"
	}
	return id
}

// Compute implements engine.Engine.
func (e *Engine) Compute() engine.Compute { return e.compute }

// Rounds implements engine.Engine.
func (e *Engine) Rounds(weights tensor.DType) bool {
	return e.compute == engine.BF16 && weights == tensor.BF16
}

// memory holds activations row after row, in float32, or in bfloat16 where only products
// read them.
type memory struct {
	*buffer
	rounded bool
}

func (m *memory) Bytes() int64 { return m.n }

// NewMat implements engine.Engine.
func (e *Engine) NewMat(rows, cols int) engine.Mat {
	n := 4 * int64(rows) * int64(cols)
	m := &memory{buffer: e.buffer(n)}
	e.Zero(m.at, n)
	return engine.Mat{Rows: rows, Cols: cols, Mem: m}
}

func memoryOf(x engine.Mat) *memory {
	m, ok := x.Mem.(*memory)
	if !ok {
		panic(fmt.Sprintf("cuda: activations in %T, want those of this engine", x.Mem))
	}
	return m
}

// at returns the address of x's first element, float32.
func at(x engine.Mat) driver.Pointer {
	m := memoryOf(x)
	if m.rounded {
		panic("cuda: an operand of products, want activations")
	}
	return m.at + driver.Pointer(4*int64(x.First)*int64(x.Cols))
}

// bytesOf returns the memory of v as bytes.
func bytesOf[T any](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(v[0])))
}

func sameSize(what string, rows, cols int, x engine.Mat) {
	if x.Rows != rows || x.Cols != cols {
		panic(fmt.Sprintf("cuda: %s: %d × %d, want %d × %d", what, x.Rows, x.Cols, rows, cols))
	}
}

// Upload implements engine.Engine.
func (e *Engine) Upload(dst engine.Mat, src tensor.Matrix) {
	sameSize("Upload", src.Rows, src.Cols, dst)
	e.Device.Upload(e.Main, at(dst), bytesOf(src.Data))
}

// Download implements engine.Engine.
func (e *Engine) Download(dst tensor.Matrix, src engine.Mat) {
	sameSize("Download", dst.Rows, dst.Cols, src)
	e.Device.Download(e.Main, bytesOf(dst.Data), at(src))
}

// vec is an engine.Vec.
type vec struct {
	*buffer
	n int
}

func (v vec) Len() int { return v.n }

// NewVec implements engine.Engine.
func (e *Engine) NewVec(v []float32) engine.Vec {
	b := e.buffer(4 * int64(len(v)))
	e.Device.Upload(e.Main, b.at, bytesOf(v))
	return vec{b, len(v)}
}

// vecAt returns the address of v's elements from i on; 0 for nil.
func vecAt(v engine.Vec, i int) driver.Pointer {
	if v == nil {
		return 0
	}
	return v.(vec).at + driver.Pointer(4*i)
}

// NewStream implements engine.Engine.
func (e *Engine) NewStream() engine.Stream {
	return &stream{engine: e, tables: map[*engine.Rotary]*table{}}
}

// stream is a stack of scratch memory.
type stream struct {
	engine  *Engine
	scratch []buffer
	bytes   int64
	tables  map[*engine.Rotary]*table
}

var (
	_ engine.Stream = (*stream)(nil)
	_ engine.Delta  = (*stream)(nil)
)

// take returns n bytes until the Release of an earlier Mark.
func (s *stream) take(n int64) driver.Pointer {
	p := s.engine.Device.take(n)
	s.scratch = append(s.scratch, buffer{p, n})
	s.bytes = max(s.bytes, s.used())
	return p
}

func (s *stream) used() int64 {
	n := int64(0)
	for _, b := range s.scratch {
		n += b.n
	}
	return n
}

// Alloc implements engine.Stream.
func (s *stream) Alloc(rows, cols int) engine.Mat {
	n := 4 * int64(rows) * int64(cols)
	return engine.Mat{Rows: rows, Cols: cols, Mem: &memory{buffer: &buffer{s.take(n), n}}}
}

// rounded returns scratch of bfloat16, which products read.
func (s *stream) rounded(rows, cols int) engine.Mat {
	n := 2 * int64(rows) * int64(cols)
	return engine.Mat{Rows: rows, Cols: cols, Mem: &memory{buffer: &buffer{s.take(n), n}, rounded: true}}
}

// Mark implements engine.Stream.
func (s *stream) Mark() int { return len(s.scratch) }

// Release implements engine.Stream.
func (s *stream) Release(mark int) {
	for _, b := range s.scratch[mark:] {
		s.engine.give(b.at, b.n)
	}
	s.scratch = s.scratch[:mark]
}

// Bytes implements engine.Stream: of the device's memory.
func (s *stream) Bytes() int64 { return s.bytes }

// each runs a kernel with a thread for every per elements of n.
func (s *stream) each(kernel string, n int64, per int, args ...any) {
	const block = 256
	s.engine.Launch(kernel, [3]int{int((n + int64(per)*block - 1) / (int64(per) * block)), 1, 1}, [3]int{block, 1, 1}, 0, args...)
}

// rows runs a kernel with a block for every row, or for so many of anything.
func (s *stream) rows(kernel string, rows, threads int, args ...any) {
	s.engine.Launch(kernel, [3]int{rows, 1, 1}, [3]int{threads, 1, 1}, 0, args...)
}

// upload returns scratch that holds x.
func upload[T any](s *stream, x []T) driver.Pointer {
	at := s.take(int64(len(bytesOf(x))))
	s.engine.Device.Upload(s.engine.Main, at, bytesOf(x))
	return at
}

// download copies what lies at from to dst.
func download[T any](s *stream, dst []T, from driver.Pointer) {
	s.engine.Device.Download(s.engine.Main, bytesOf(dst), from)
}

func size(x engine.Mat) int64 { return int64(x.Rows) * int64(x.Cols) }

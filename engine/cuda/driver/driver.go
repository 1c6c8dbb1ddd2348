// Package driver opens the CUDA driver and cuBLASLt at run time and calls them, from a
// program that is static and made without cgo. Where they are opened is a process of its
// own (see host/host.c): commands go to it through shared memory and are run in order,
// so that posting one costs some tens of nanoseconds, and a driver that crashes takes
// nothing with it.
//
// What fails at the device while nobody waits for it is reported where the next result
// is waited for, by a panic with an engine.Failure (see there).
package driver

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/crepe-llm/crepe/engine"
)

// ErrClosed is what becomes of commands after Close.
var ErrClosed = errors.New("the device is closed")

// Path names the driver in place of libcuda.so.1, and BlasPath cuBLASLt.
const (
	PathVariable = "CREPE_CUDA_DRIVER"
	BlasVariable = "CREPE_CUBLASLT"
)

// The oldest driver that reads the kernels' code (CUDA 12.4), and the oldest card that
// runs it (compute capability 8.0).
const (
	minVersion    = 12040
	minCapability = 80
)

// Pointer is an address in the device's memory.
type Pointer uint64

// Event is a point in the order of commands that the device has reached or not.
type Event uint64

// Stream is a queue of the device: what is posted to one is done in order.
type Stream uint64

// Shared is host memory that the device copies from and to.
type Shared struct {
	Data  []byte
	there uint64
}

// Info is what is known of a device.
type Info struct {
	Name            string
	Capability      int // 90 for 9.0
	Driver          int // the CUDA version it is of, 12040 for 12.4
	Multiprocessors int
	Memory          int64  // bytes
	SharedMemory    int    // bytes that a block may have
	Blas            string // version of cuBLASLt
}

// Device is a device that is open. Several goroutines may use it.
type Device struct {
	Info  Info
	Main  Stream // where kernels run
	Aside Stream // where weights are copied to the device meanwhile

	host *host
	f    [functions]function

	modules sync.Mutex
	module  uint64
	kernels map[string]function
	raised  map[string]int // dynamic shared memory that a kernel may have

	up, aside, down staging // of Main, of Aside, and of downloads
	blas            *blas
}

// The functions of libcuda.
const (
	cuInit = iota
	cuDriverGetVersion
	cuDeviceGetCount
	cuDeviceGet
	cuDeviceGetName
	cuDeviceGetAttribute
	cuDeviceTotalMem
	cuDevicePrimaryCtxRetain
	cuCtxSetCurrent
	cuModuleLoadData
	cuModuleGetFunction
	cuFuncSetAttribute
	cuLaunchKernel
	cuMemAlloc
	cuMemFree
	cuMemGetInfo
	cuMemHostRegister
	cuMemcpyHtoDAsync
	cuMemcpyDtoHAsync
	cuMemcpyDtoDAsync
	cuMemsetD8Async
	cuStreamCreate
	cuStreamWaitEvent
	cuEventCreate
	cuEventRecord
	cuEventQuery
	cuEventDestroy
	cuGetErrorName
	cuGetErrorString
	functions
)

var names = [functions]string{
	"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
	"cuDeviceTotalMem_v2", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuModuleLoadData", "cuModuleGetFunction",
	"cuFuncSetAttribute", "cuLaunchKernel", "cuMemAlloc_v2", "cuMemFree_v2", "cuMemGetInfo_v2", "cuMemHostRegister_v2",
	"cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2", "cuMemsetD8Async", "cuStreamCreate",
	"cuStreamWaitEvent", "cuEventCreate", "cuEventRecord", "cuEventQuery", "cuEventDestroy_v2",
	"cuGetErrorName", "cuGetErrorString",
}

// Results of the driver that are told apart.
const (
	outOfMemory = 2
	notReady    = 600
)

// Open opens device n and loads code, the text of its kernels.
func Open(n int, code []byte) (*Device, error) {
	h, err := startHost()
	if err != nil {
		return nil, err
	}
	d := &Device{host: h, kernels: map[string]function{}, raised: map[string]int{}}
	if err := d.open(n, code); err != nil {
		h.close()
		return nil, err
	}
	return d, nil
}

// Close ends the use of the device and gives back all that it holds.
func (d *Device) Close() { d.host.close() }

func (d *Device) open(n int, code []byte) (err error) {
	defer engine.Recover(&err)
	path := os.Getenv(PathVariable)
	if path == "" {
		path = "libcuda.so.1"
	}
	library, err := d.host.open(path)
	if err != nil {
		return fmt.Errorf("no CUDA driver: %w: install NVIDIA's driver", err)
	}
	for i, name := range names {
		if d.f[i], err = d.host.symbol(library, name); err != nil {
			return fmt.Errorf("%s: %w: the CUDA driver is too old", path, err)
		}
	}
	if err := d.try(cuInit, 0); err != nil {
		return err
	}
	if err := d.inspect(n); err != nil {
		return err
	}
	for _, s := range []*Stream{&d.Main, &d.Aside} {
		const nonBlocking = 1
		v, err := d.value(cuStreamCreate, nonBlocking)
		if err != nil {
			return err
		}
		*s = Stream(v)
	}
	if err := d.load(code); err != nil {
		return err
	}
	for _, s := range []*staging{&d.up, &d.aside, &d.down} {
		if err := s.open(d); err != nil {
			return err
		}
	}
	d.blas, err = openBlas(d)
	return err
}

// inspect finds device n and makes it the one in use.
func (d *Device) inspect(n int) error {
	version, err := d.value(cuDriverGetVersion)
	if err != nil {
		return err
	}
	if d.Info.Driver = int(uint32(version)); d.Info.Driver < minVersion {
		return fmt.Errorf("the NVIDIA driver is of CUDA %s, want %s or newer", dotted(d.Info.Driver/10), dotted(minVersion/10))
	}
	count, err := d.value(cuDeviceGetCount)
	if err != nil {
		return err
	}
	if count := int(uint32(count)); n < 0 || n >= count {
		return fmt.Errorf("CUDA device %d: there are %d, from 0 on", n, count)
	}
	device, err := d.value(cuDeviceGet, uint64(n))
	if err != nil {
		return err
	}
	device = uint64(uint32(device))
	name := d.host.text(strings.Repeat(" ", 255))
	if err := d.try(cuDeviceGetName, name, 256, device); err != nil {
		return err
	}
	d.Info.Name = d.textAt(name)
	attribute := func(which uint64) int {
		v, e := d.value(cuDeviceGetAttribute, which, device)
		err = errors.Join(err, e)
		return int(uint32(v))
	}
	const multiprocessors, major, minor, sharedOptIn = 16, 75, 76, 97
	d.Info.Multiprocessors, d.Info.SharedMemory = attribute(multiprocessors), attribute(sharedOptIn)
	d.Info.Capability = 10*attribute(major) + attribute(minor)
	if err != nil {
		return err
	}
	if d.Info.Capability < minCapability {
		return fmt.Errorf("%s has compute capability %s, want %s or newer", d.Info.Name, dotted(d.Info.Capability), dotted(minCapability))
	}
	total, err := d.value(cuDeviceTotalMem, device)
	if err != nil {
		return err
	}
	d.Info.Memory = int64(total)
	context, err := d.value(cuDevicePrimaryCtxRetain, device)
	if err != nil {
		return err
	}
	return d.try(cuCtxSetCurrent, context)
}

func dotted(v int) string {
	if v >= 1000 {
		return fmt.Sprintf("%d.%d", v/100, v%100)
	}
	return fmt.Sprintf("%d.%d", v/10, v%10)
}

// load compiles code for the device.
func (d *Device) load(code []byte) error {
	text, err := d.host.share(len(code) + 1)
	if err != nil {
		return err
	}
	copy(text.Data, code)
	d.module, err = d.value(cuModuleLoadData, text.there)
	if err != nil {
		return fmt.Errorf("the kernels cannot be loaded: %w", err)
	}
	return nil
}

// textAt reads a C string in the words that host.text handed out.
func (d *Device) textAt(there uint64) string {
	b := d.host.at(there)
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Err is a result of the driver that is not success.
type Err struct {
	Code          int
	Name, Meaning string
}

func (e *Err) Error() string { return fmt.Sprintf("CUDA: %s (%s)", e.Meaning, e.Name) }

// fail returns the error of a result; nil of success.
func (d *Device) fail(code int) error {
	if code == 0 {
		return nil
	}
	describe := func(which int) string {
		there, here := d.host.word()
		if d.host.call(d.f[which], uint64(code), there) != 0 || *here == 0 {
			return fmt.Sprintf("error %d", code)
		}
		return d.host.peek(*here)
	}
	return &Err{Code: code, Name: describe(cuGetErrorName), Meaning: describe(cuGetErrorString)}
}

// try calls a function and returns its error.
func (d *Device) try(which int, args ...uint64) error {
	return d.fail(int(uint32(d.host.call(d.f[which], args...))))
}

// value calls a function that writes a value of at most 8 bytes where its first
// argument points to.
func (d *Device) value(which int, args ...uint64) (uint64, error) {
	there, here := d.host.word()
	*here = 0
	err := d.try(which, append([]uint64{there}, args...)...)
	return *here, err
}

// post posts a call of a function.
func (d *Device) post(which int, args ...uint64) { d.host.post(d.f[which], args...) }

// Alloc returns n bytes of the device's memory, of any content. ErrMemory says that
// there are not as many.
func (d *Device) Alloc(n int64) (Pointer, error) {
	p, err := d.value(cuMemAlloc, uint64(n))
	var e *Err
	if errors.As(err, &e) && e.Code == outOfMemory {
		return 0, ErrMemory
	}
	return Pointer(p), err
}

// ErrMemory says that the device has not as much memory.
var ErrMemory = errors.New("the device's memory is used up")

// Free gives memory back that no command uses any more.
func (d *Device) Free(p Pointer) { d.post(cuMemFree, uint64(p)) }

// MemoryInfo returns how much of the device's memory is free, and all of it, in bytes.
func (d *Device) MemoryInfo() (free, total int64, err error) {
	a, here := d.host.word()
	b, there := d.host.word()
	err = d.try(cuMemGetInfo, a, b)
	return int64(*here), int64(*there), err
}

// Zero clears n bytes.
func (d *Device) Zero(p Pointer, n int64) {
	if n > 0 {
		d.post(cuMemsetD8Async, uint64(p), 0, uint64(n), uint64(d.Main))
	}
}

// Move copies n bytes inside the device.
func (d *Device) Move(dst, src Pointer, n int64) {
	if n > 0 {
		d.post(cuMemcpyDtoDAsync, uint64(dst), uint64(src), uint64(n), uint64(d.Main))
	}
}

// Launch runs a kernel on the Main stream. shared is the size of its dynamic shared
// memory in bytes. Arguments are Pointer, int, int32, int64, uint32, uint64, float32,
// float64 and bool, as the kernel declares them: an int is an int32 there.
func (d *Device) Launch(kernel string, grid, block [3]int, shared int, args ...any) {
	if grid[0]*grid[1]*grid[2] == 0 {
		return
	}
	words := make([]uint64, 9, 9+len(args))
	words[0] = uint64(d.kernel(kernel, shared))
	for i := range 3 {
		words[1+i], words[4+i] = uint64(grid[i]), uint64(block[i])
	}
	words[7], words[8] = uint64(shared), uint64(d.Main)
	for _, a := range args {
		words = append(words, word(a))
	}
	d.host.launch(d.f[cuLaunchKernel], words...)
}

func word(a any) uint64 {
	switch a := a.(type) {
	case Pointer:
		return uint64(a)
	case int:
		if a != int(int32(a)) {
			panic(fmt.Sprintf("driver: argument %d, want an int32", a))
		}
		return uint64(uint32(int32(a)))
	case int32:
		return uint64(uint32(a))
	case uint32:
		return uint64(a)
	case int64:
		return uint64(a)
	case uint64:
		return a
	case uintptr:
		return uint64(a)
	case float32:
		return uint64(*(*uint32)(unsafe.Pointer(&a)))
	case float64:
		return *(*uint64)(unsafe.Pointer(&a))
	case bool:
		if a {
			return 1
		}
		return 0
	}
	panic(fmt.Sprintf("driver: argument of type %T", a))
}

// kernel returns a kernel that may have so much dynamic shared memory.
func (d *Device) kernel(name string, shared int) function {
	d.modules.Lock()
	defer d.modules.Unlock()
	f, ok := d.kernels[name]
	if !ok {
		v, err := d.value(cuModuleGetFunction, d.module, d.host.text(name))
		if err != nil {
			panic(fmt.Sprintf("driver: kernel %s: %v", name, err))
		}
		f = function(v)
		d.kernels[name] = f
	}
	const always = 48 << 10
	if shared > always && shared > d.raised[name] {
		const maxDynamicShared = 8
		d.post(cuFuncSetAttribute, uint64(f), maxDynamicShared, uint64(shared))
		d.raised[name] = shared
	}
	return f
}

// Record returns an Event at the end of what has been posted to s.
func (d *Device) Record(s Stream) Event {
	const disableTiming = 2
	e, err := d.value(cuEventCreate, disableTiming)
	if err != nil {
		panic(d.Failed(err))
	}
	d.post(cuEventRecord, e, uint64(s))
	return Event(e)
}

// After makes what is posted to s from now on wait for e.
func (d *Device) After(s Stream, e Event) { d.post(cuStreamWaitEvent, uint64(s), uint64(e), 0) }

// Drop gives an Event back.
func (d *Device) Drop(e Event) { d.post(cuEventDestroy, uint64(e)) }

// Reached reports whether the device has reached e.
func (d *Device) Reached(e Event) bool {
	code := int(uint32(d.host.call(d.f[cuEventQuery], uint64(e))))
	if code == notReady {
		return false
	}
	d.must(code)
	return true
}

// must panics with a Failure if code, or what was posted before, failed.
func (d *Device) must(code int) {
	if first, failed := d.host.failure(); failed {
		code = first
	}
	if err := d.fail(code); err != nil {
		panic(d.Failed(err))
	}
}

// Failed returns the Failure of a device that does no more.
func (d *Device) Failed(err error) *engine.Failure {
	return &engine.Failure{Err: fmt.Errorf("%s no longer computes: %w: nvidia-smi and the system's log may say why", d.Info.Name, err)}
}

// Wait waits until the device has reached e.
func (d *Device) Wait(e Event) {
	for n := 0; !d.Reached(e); n++ {
		switch {
		case n > 200:
			time.Sleep(50 * time.Microsecond)
		case n > 10:
			runtime.Gosched()
		}
	}
}

// Sync waits until all that was posted to s is done.
func (d *Device) Sync(s Stream) {
	e := d.Record(s)
	d.Wait(e)
	d.Drop(e)
}

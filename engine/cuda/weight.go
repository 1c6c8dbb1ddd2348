package cuda

import (
	"runtime"
	"sync"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
	"github.com/crepe-llm/crepe/tensor"
)

// Weights are copied to the device on a queue of their own, Aside, so that those of the
// next block come while kernels run. Main waits for a weight where it is first read, and
// Aside, before it writes where a weight has been, for what read it.

// weight is a tensor.Weight and its copy on the device.
type weight struct {
	device  *Device
	w       *tensor.Weight
	n       int64
	cleanup runtime.Cleanup

	mu     sync.Mutex
	memory driver.Pointer // 0 once it is freed
	copied driver.Event   // Main has still to wait for it; 0: it has
}

// leftWeight is where a weight has been, and until when it may be read.
type leftWeight struct {
	at    driver.Pointer
	until driver.Event // of Main; 0: nobody knows
}

func (o *weight) Dims() (out, in int)    { return o.w.Rows, o.w.Cols }
func (o *weight) DType() tensor.DType    { return o.w.DType }
func (o *weight) Bytes() int64           { return o.n }
func (o *weight) Weight() *tensor.Weight { return o.w }
func (o *weight) Read(w *tensor.Weight)  { copy(w.Bytes(), o.w.Bytes()) }

// Load implements engine.Engine. A change of w is seen by the next Load.
func (e *Engine) Load(w *tensor.Weight) (op engine.Op, err error) {
	defer engine.Recover(&err)
	d, o := e.Device, &weight{device: e.Device, w: w, n: int64(len(w.Bytes()))}
	o.memory = d.takeWeight(o.n)
	at := o.memory
	o.cleanup = runtime.AddCleanup(o, func(n int64) { d.leaveWeight(leftWeight{at: at}, n) }, o.n)
	d.Upload(d.Aside, at, w.Bytes())
	o.copied = d.Record(d.Aside)
	return o, nil
}

// at returns where the weight is, for what is posted to Main from now on.
func (o *weight) at() driver.Pointer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.memory == 0 {
		panic("cuda: a weight that is freed")
	}
	if o.copied != 0 {
		o.device.After(o.device.Main, o.copied)
		o.device.Drop(o.copied)
		o.copied = 0
	}
	return o.memory
}

// Free implements engine.Freer.
func (o *weight) Free() {
	at := o.at()
	o.cleanup.Stop()
	o.memory = 0
	o.device.leaveWeight(leftWeight{at, o.device.Record(o.device.Main)}, o.n)
}

// takeWeight is take for what is written on Aside.
func (d *Device) takeWeight(n int64) driver.Pointer {
	size := roomFor(max(n, 1))
	d.mu.Lock()
	var w leftWeight
	if list := d.left[size]; len(list) > 0 {
		w, d.left[size] = list[0], list[1:] // the one left first
		d.idle -= size
	}
	d.mu.Unlock()
	if w.at == 0 {
		w.at = d.take(n)
	}
	if w.until == 0 {
		w.until = d.Record(d.Main)
	}
	d.After(d.Aside, w.until)
	d.Drop(w.until)
	return w.at
}

// leaveWeight takes back what takeWeight returned for n bytes.
func (d *Device) leaveWeight(w leftWeight, n int64) {
	size := roomFor(max(n, 1))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left[size] = append(d.left[size], w)
	d.idle += size
}

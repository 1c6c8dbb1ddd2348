package session

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/cuda"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
)

// Device names what computes: Auto, "cpu", "cuda" or "cuda:N", the N-th card from 0 on.
type Device struct {
	Name   string // empty: "cpu"
	Memory int64  // bytes of a card's memory that may be taken; 0: what is free
}

// ParseDevice reads a Device.Name. auto takes a card if there is one.
func ParseDevice(name string) (card int, isCard, auto bool, err error) {
	switch name {
	case "", "cpu":
		return 0, false, false, nil
	case Auto:
		return 0, true, true, nil
	case "cuda":
		return 0, true, false, nil
	}
	if n, ok := strings.CutPrefix(name, "cuda:"); ok {
		if card, err := strconv.Atoi(n); err == nil && card >= 0 && strconv.Itoa(card) == n {
			return card, true, false, nil
		}
	}
	return 0, false, false, fmt.Errorf("device %q, want auto, cpu, cuda or cuda:N", name)
}

// cards are those that this process has opened: a card is opened once.
var cards = struct {
	sync.Mutex
	open map[Device]*cuda.Device
}{open: map[Device]*cuda.Device{}}

// openCard opens card n with that much of its memory.
func openCard(n int, memory int64) (*cuda.Device, error) {
	cards.Lock()
	defer cards.Unlock()
	key := Device{fmt.Sprintf("cuda:%d", n), memory}
	if d := cards.open[key]; d != nil {
		return d, nil
	}
	d, err := cuda.Open(cuda.Options{Number: n, Memory: memory})
	if err != nil {
		return nil, err
	}
	cards.open[key] = d
	return d, nil
}

// hasCard reports whether the system has an NVIDIA card, as far as can be seen without
// opening it.
func hasCard() bool {
	for _, path := range []string{"/dev/nvidiactl", "/dev/dxg"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return os.Getenv(driver.PathVariable) != ""
}

// engines makes engines for one device: an engine for each type of products' inputs.
type engines func(engine.Compute) engine.Engine

// CheckDevice opens the device that the options name, and says what keeps it from that.
func (o Options) CheckDevice() error {
	_, _, err := o.device()
	return err
}

// device returns what makes the engines that the options ask for, and whether it rounds
// to bfloat16 fast.
func (o Options) device() (make engines, fastBF16 bool, err error) {
	onCPU := func(c engine.Compute) engine.Engine { return cpu.New(c) }
	n, isCard, auto, err := ParseDevice(o.Device.Name)
	if err != nil {
		return nil, false, err
	}
	if !isCard || auto && !hasCard() {
		return onCPU, cpu.FastBF16(), nil
	}
	d, err := openCard(n, o.Device.Memory)
	switch {
	case err == nil:
	case auto:
		o.warn("the GPU is not used, the processor computes: %v", err)
		return onCPU, cpu.FastBF16(), nil
	default:
		return nil, false, fmt.Errorf("device cuda:%d: %w", n, err)
	}
	if o.Notice != nil {
		o.Notice("cuda:%d computes: %s, %d MiB", n, d.Info.Name, d.Info.Memory>>20)
	}
	return func(c engine.Compute) engine.Engine { return cuda.New(d, c) }, true, nil
}

package search

import "slices"

// hillClimb takes coordinate steps: from the best point so far one step up or
// down along each axis in turn; a better point becomes the best, and a round of
// all axes without one halves the step. It begins at Options.Start.
type hillClimb struct {
	best  []float64 // nil before the first Tell
	value float64
	start []float64
	step  float64
	next  int // of 2·dim: axis next/2, up or down
	since int // steps without success
}

const (
	hillStep    = 0.25
	hillMinStep = 1.0 / 1024 // then from the first again, from where it is
)

func newHillClimb(o Options) (Sampler, error) {
	return &hillClimb{start: snap(o.Start), step: hillStep}, nil
}

func (h *hillClimb) Ask() ([]float64, error) {
	if h.best == nil {
		return h.start, nil
	}
	for {
		x := slices.Clone(h.best)
		x[h.next/2] += h.step * float64(1-2*(h.next%2))
		if x = snap(x); !slices.Equal(x, h.best) {
			return x, nil
		}
		h.fail() // the wall
	}
}

func (h *hillClimb) Tell(x []float64, value float64) error {
	if h.best == nil || value < h.value {
		h.best, h.value, h.since = slices.Clone(x), value, 0
		return nil // and on along the same axis
	}
	h.fail()
	return nil
}

// fail turns to the next direction, and after all of them to a smaller step.
func (h *hillClimb) fail() {
	h.next = (h.next + 1) % (2 * len(h.best))
	if h.since++; h.since < 2*len(h.best) {
		return
	}
	h.since = 0
	if h.step /= 2; h.step < hillMinStep {
		h.step = hillStep
	}
}

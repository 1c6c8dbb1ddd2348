package search

import (
	"cmp"
	"slices"
)

// descent is a coordinate descent with parabolas. A round goes along each axis in steps,
// on while points get better, until the best point has a worse neighbour on both sides.
// The parabola through these three says where between them the minimum is. The points'
// distance to it, of all axes together, is the round's last step, as if the axes did not
// depend on each other: whole, or else half. The next round has half the step, and begins
// with the axes that gained most. It begins at Options.Start.
//
// So a round finds a minimum between the points that it tries, which of many axes and few
// trials is most of what can be found.
type descent struct {
	best  []float64 // nil before the first Tell
	value float64
	start []float64
	step  float64

	order []int // the round's axes
	at    int   // in order; after the last comes the step along all
	up    bool  // direction of the next point
	sides [2]side
	below float64 // value when the axis began

	gain   []float64 // by axis: what the round has gained, and is expected to
	vertex []float64 // by axis: how far the minimum is from best
	scale  float64   // of the step along all
}

// side is best's neighbour below or above on the axis.
type side struct {
	known bool
	x     float64 // less best's
	value float64
}

func newDescent(o Options) (Sampler, error) {
	d := &descent{start: snap(o.Start), step: hillStep}
	for i := range d.start {
		d.order = append(d.order, i)
	}
	return d, nil
}

func (d *descent) Ask() ([]float64, error) {
	if d.best == nil {
		return d.start, nil
	}
	for {
		x := slices.Clone(d.best)
		if d.at == len(d.order) {
			for i, v := range d.vertex {
				x[i] += d.scale * v
			}
		} else if d.up {
			x[d.order[d.at]] += d.step
		} else {
			x[d.order[d.at]] -= d.step
		}
		if x = snap(x); !slices.Equal(x, d.best) {
			return x, nil
		}
		d.blocked()
	}
}

func (d *descent) Tell(x []float64, value float64) error {
	switch {
	case d.best == nil:
		d.best, d.value = slices.Clone(x), value
		d.round()
	case d.at == len(d.order):
		if value < d.value {
			d.best, d.value = slices.Clone(x), value
			d.round()
		} else if d.scale /= 2; d.scale < 0.5 {
			d.round()
		}
	default:
		axis := d.order[d.at]
		from, to := d.side(false), d.side(true)
		if !d.up {
			from, to = to, from
		}
		if value < d.value {
			*from, *to = side{true, d.best[axis] - x[axis], d.value}, side{}
			d.best, d.value = slices.Clone(x), value
			return nil // and on
		}
		*to = side{true, x[axis] - d.best[axis], value}
		d.turn(from)
	}
	return nil
}

func (d *descent) side(up bool) *side {
	if up {
		return &d.sides[1]
	}
	return &d.sides[0]
}

// blocked is at a wall, or at a minimum that is between no points.
func (d *descent) blocked() {
	if d.at == len(d.order) {
		d.round()
		return
	}
	d.turn(d.side(!d.up))
}

// turn goes on to the other side, or if that is known, or a wall, to the next axis.
func (d *descent) turn(other *side) {
	if d.up && !other.known {
		d.up = false
		return
	}
	axis := d.order[d.at]
	d.gain[axis] = d.below - d.value
	if lo, hi := d.sides[0], d.sides[1]; lo.known && hi.known {
		// Newton's divided differences around best.
		l, h := (lo.value-d.value)/lo.x, (hi.value-d.value)/hi.x
		if bend := (h - l) / (hi.x - lo.x); bend > 0 {
			slope := l - bend*lo.x
			d.vertex[axis] = -slope / (2 * bend)
			d.gain[axis] += slope * slope / (4 * bend)
		}
	}
	d.at++
	d.axis()
}

// axis begins one.
func (d *descent) axis() {
	d.up, d.sides, d.below, d.scale = true, [2]side{}, d.value, 1
}

// round begins one.
func (d *descent) round() {
	if d.gain != nil {
		slices.SortStableFunc(d.order, func(a, b int) int { return cmp.Compare(d.gain[b], d.gain[a]) })
		if d.step /= 2; d.step < hillMinStep {
			d.step = hillStep
		}
	}
	d.gain, d.vertex = make([]float64, len(d.order)), make([]float64, len(d.order))
	d.at = 0
	d.axis()
}

package pho

import (
	"math"
	"math/rand/v2"
	"testing"
)

// testdata/race.json is made by tools/golden_race.py. The tail of Student's t is
// good to some 1e-12 of itself.
func TestChancesEqualScipy(t *testing.T) {
	var cases []struct {
		Windows        int
		Full, Screened [][]float64
		Chances        []float64
	}
	readJSON(t, "testdata/race.json", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for n, c := range cases {
		r := &race{windows: c.Windows, spread: 0.005}
		for i := range c.Full {
			r.entrants = append(r.entrants, entrant{full: c.Full[i], screened: c.Screened[i]})
		}
		for i, got := range r.chances() {
			if want := c.Chances[i]; !(math.Abs(got-want) <= 1e-9*want) {
				t.Errorf("case %d, entrant %d: chance %v, want %v", n, i, got, want)
			}
		}
	}
}

// Three windows by hand: entrant 1 is known both ways and differs by 0.1, which is taken
// for common to all; entrant 2, screened on all windows, is expected 0.3 above the best.
// With q = 2·0.005² and 4 degrees of freedom, t = 0.3/√q.
func TestRaceByHand(t *testing.T) {
	r := &race{windows: 3, spread: 0.005, entrants: []entrant{{screened: []float64{1.1, 2.1, 3.1}}, {screened: []float64{1, 2, 3}}, {screened: []float64{1.2, 2.2, 3.2}}}}
	if r.chances() != nil || r.lowest() != 1 || r.best() != -1 {
		t.Errorf("chances %v, lowest %d, best %d, want none, 1 and none", r.chances(), r.lowest(), r.best())
	}
	r.entrants[1].full = []float64{1.1, 2.1, 3.1}
	q := 2 * r.spread * r.spread
	for i, lag := range []float64{0.1, 0, 0.2} {
		want := above(lag, q, prior)
		if i == 1 {
			want = 0 // measured
		}
		if got := r.chances()[i]; !(math.Abs(got-want) <= 1e-9) {
			t.Errorf("entrant %d: chance %v, want %v", i, got, want)
		}
	}
	if r.next() != -1 {
		t.Errorf("next %d, want none", r.next())
	}
	r.entrants[0].screened = []float64{1.001, 2.001, 3.001}
	if r.next() != 0 {
		t.Errorf("next %d, want the one that is nearly as good", r.next())
	}
	// Entrants whose errors differ leave more in doubt.
	r.entrants[2].full = []float64{1.4, 2.4, 3.4}
	if _, more, f, ok := r.errors(); !ok || f != prior+1 || !(more > q) {
		t.Errorf("q %v with %v degrees of freedom, want more than %v with %v", more, f, q, prior+1)
	}
	r.entrants[0].full = []float64{1, 2, 2.9}
	if r.next() != -1 || r.best() != 0 {
		t.Errorf("next %d, best %d, want -1 and 0", r.next(), r.best())
	}
}

// Races of made-up candidates, from alike to far apart, whose screenings err by more
// or less than that, and which do badly on the same windows or on their own: the
// winner is given up in less than 1 of 20 with each, and most of the measuring is
// spared where there is something to tell them by.
func TestRaceSeldomGivesUpTheWinner(t *testing.T) {
	const races, limit = 200, (1 - Confidence) * 200
	rng := rand.New(rand.NewPCG(1, 2))
	for _, m := range []madeUp{{}, {errs: 2e-4}, {errs: 2e-3}} {
		for _, m.spread = range []float64{0, 1e-4, 1e-3, 1e-2, 5e-2} {
			for _, m.common = range []float64{0, 0.01} {
				wrong, measured := 0, 0
				for range races {
					right, n := m.race(rng)
					if !right {
						wrong++
					}
					measured += n
				}
				t.Logf("%+v: %d of %d wrong, %.1f measured of %d", m, wrong, races, float64(measured)/races, madeUpCount-1)
				if float64(wrong) > limit {
					t.Errorf("%+v: the winner was given up in %d of %d races, want at most %v", m, wrong, races, limit)
				}
				if m.spread > 0.02 && measured > races*madeUpCount/4 {
					t.Errorf("%+v: %d were measured in full of %d", m, measured, races*(madeUpCount-1))
				}
			}
		}
	}
}

const madeUpCount = 12

// madeUp candidates, in nats.
type madeUp struct {
	spread float64 // of their means
	errs   float64 // of screening, in the mean and again in each window
	common float64 // of the windows, for all but the first alike
}

// race runs one race and returns whether the lowest won, and how many beside the
// first were measured in full.
func (m madeUp) race(rng *rand.Rand) (right bool, measured int) {
	const windows, own = 54, 0.005
	r := &race{windows: windows, spread: 0.005, entrants: make([]entrant, madeUpCount)}
	var full, screened [madeUpCount][]float64
	text, alike := make([]float64, windows), make([]float64, windows)
	for w := range text {
		text[w], alike[w] = 4.5+0.3*rng.NormFloat64(), m.common*rng.NormFloat64()
	}
	winner := 0
	for i := range full {
		level, err := m.spread*rng.NormFloat64(), m.errs*rng.NormFloat64()
		for w, x := range text {
			x += level + own*rng.NormFloat64()
			if i > 0 {
				x += alike[w]
			}
			full[i] = append(full[i], x)
			screened[i] = append(screened[i], x+err+m.errs*rng.NormFloat64())
		}
		if mean(full[i]) < mean(full[winner]) {
			winner = i
		}
		r.entrants[i].screened = screened[i][:r.firstLook()]
	}
	first := r.lowest()
	r.entrants[first] = entrant{full: full[first], screened: screened[first]}
	for i := r.next(); i >= 0; i = r.next() {
		if e := &r.entrants[i]; len(e.screened) < windows {
			e.screened = screened[i]
		} else {
			e.full = full[i]
			measured++
		}
	}
	return r.best() == winner, measured
}

package pho

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Confidence is that with which the rest are given up: with at most 1 − Confidence
// probability one of them would be the best, were all pruned in full.
const Confidence = 0.95

// GiveUp is at which sum of their chances the rest are given up: each is judged at looks
// numbers of windows.
const GiveUp = (1 - Confidence) / looks

// looks are at how many numbers of windows an entrant is judged.
const looks = 2

// entrant is what is known of a candidate in stage 2: the mean negative
// log-likelihood of windows, nats per token.
type entrant struct {
	full     []float64 // pruned in full, of all windows; nil: it was not
	blocks   []float64 // of that: Candidate.Blocks
	screened []float64 // pruned by the default's norms, of the first windows
}

// What is known of the errors of screening before any is seen: those of two candidates
// differ by errorShare of what pruning loses, in the root mean square, which is worth
// prior observations. docs/real-models.md has what was seen.
const (
	errorShare = 0.01
	prior      = 4
)

// race decides which candidates of stage 2 are worth what they cost.
//
// An entrant that was not measured in full has a chance of being the best nonetheless.
// Screening errs: by r_j, full less screened in the mean of all windows, of each of the k
// entrants known both ways, of which the best is one. Most of it is common to all: r̄.
// With d_w = screened_w + r̄ − best_w on the n of N windows that the entrant was screened
// on,
//
//	chance = P(T_f > d̄/√(v + q))
//	v = s²/n·(1 − n/N)
//	q = (ν·σ² + Σ (r_j − r̄)²)/(ν + k − 1)·(1 + 1/k)
//
// where s² is the variance of d_w, of which the last factor of v takes the part
// that is known (Cochran, Sampling Techniques, 2.6); q is how far the entrant's error may
// be from r̄, with σ and ν of what was known before (errorShare, prior; Gelman et al.,
// Bayesian Data Analysis, 2.6); and f is the degrees of freedom of a sum of
// variances, (v + q)²/f = v²/g + q²/(ν + k − 1) with g = n − 1 (Satterthwaite 1946,
// Biometrics Bulletin 2). With a flat prior that is the posterior probability that its
// full mean is the lower one (Gelman et al., 3.2).
//
// Candidates do well and badly on the same windows. So where it makes v smaller, d̄
// is corrected by another entrant that was screened on all windows, whose z_w =
// screened_w − best_w are known beyond the n (the regression estimator; Cochran,
// 7.3):
//
//	d̄ + b·(z̄_N − z̄_n),  b = Σ (z_w − z̄_n)·d_w / Σ (z_w − z̄_n)²
//
// with the variance of what b·z_w leaves of d_w, and g = n − 2.
//
// The race is over when all chances together, which bounds the probability of any,
// are at most GiveUp: an entrant is looked at on half of the windows and on all.
type race struct {
	windows  int     // N
	spread   float64 // σ, nats: errorShare of what pruning loses
	entrants []entrant
}

// expect sets what is known of the errors of screening before any is seen: entrant i was
// screened on all windows, and the dense model has so many nats per token.
func (r *race) expect(i int, dense float64) {
	r.spread = errorShare * math.Abs(mean(r.entrants[i].screened)-dense)
}

// best returns the lowest of those measured in full, of equals the first; −1: none was.
func (r *race) best() int {
	best := -1
	for i, e := range r.entrants {
		if e.full != nil && (best < 0 || mean(e.full) < mean(r.entrants[best].full)) {
			best = i
		}
	}
	return best
}

// errors returns r̄, q and its degrees of freedom; ok is false if k is 0.
func (r *race) errors() (common, q, f float64, ok bool) {
	var d []float64
	for _, e := range r.entrants {
		if e.full != nil && len(e.screened) == r.windows {
			d = append(d, mean(e.full)-mean(e.screened))
		}
	}
	if len(d) == 0 {
		return 0, 0, 0, false
	}
	k := float64(len(d))
	common, f = mean(d), prior+k-1
	return common, (prior*r.spread*r.spread + squares(d, common)) / f * (1 + 1/k), f, true
}

// lag is by how much more an entrant is expected to have than the best, in the mean
// of all windows: d, with variance v of g degrees of freedom.
type lag struct{ d, v, g float64 }

func (r *race) lag(e entrant, best []float64) lag {
	x := minus(e.screened, best)
	n := float64(len(x))
	l := lag{d: mean(x), g: n - 1}
	l.v = squares(x, l.d) / l.g / n * (1 - n/float64(r.windows))
	if l.v == 0 {
		return l
	}
	for _, c := range r.entrants {
		if len(c.screened) < r.windows {
			continue
		}
		if by := r.regress(x, minus(c.screened, best)); by.v < l.v {
			l = by
		}
	}
	return l
}

// regress returns the lag of x = d_w by z, which is known on all windows.
func (r *race) regress(x, z []float64) lag {
	n := float64(len(x))
	seen := mean(z[:len(x)])
	b := 0.0
	for w, d := range x {
		b += (z[w] - seen) * d
	}
	b /= squares(z[:len(x)], seen)
	rest := make([]float64, len(x))
	for w, d := range x {
		rest[w] = d - b*z[w]
	}
	l := lag{d: mean(x) + b*(mean(z)-seen), g: n - 2}
	l.v = squares(rest, mean(rest)) / l.g / n * (1 - n/float64(r.windows))
	return l
}

// minus returns a less b, of which it may be the beginning.
func minus(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i, v := range a {
		out[i] = v - b[i]
	}
	return out
}

// squares returns Σ (x_i − m)².
func squares(x []float64, m float64) float64 {
	s := 0.0
	for _, v := range x {
		s += (v - m) * (v - m)
	}
	return s
}

// chances returns each entrant's; 0 of one measured in full. Nobody knows them (nil)
// as long as no entrant is known both ways.
func (r *race) chances() []float64 {
	common, q, g, ok := r.errors()
	if !ok {
		return nil
	}
	best := r.entrants[r.best()].full
	out := make([]float64, len(r.entrants))
	for i, e := range r.entrants {
		if e.full != nil {
			continue
		}
		l := r.lag(e, best)
		f := (l.v + q) * (l.v + q) / (l.v*l.v/l.g + q*q/g)
		out[i] = above(l.d+common, l.v+q, f)
	}
	return out
}

// next returns the entrant to measure further: on all windows, or in full if it has
// been screened on them. None, −1, if the race is over.
func (r *race) next() int {
	sum, next := 0.0, 0
	chances := r.chances()
	for i, c := range chances {
		sum += c
		if c > chances[next] {
			next = i
		}
	}
	if sum <= GiveUp {
		return -1
	}
	return next
}

// lowest returns the entrant whose first look has the lowest mean; all have had it.
func (r *race) lowest() int {
	low, n := 0, r.firstLook()
	for i, e := range r.entrants {
		if mean(e.screened[:n]) < mean(r.entrants[low].screened[:n]) {
			low = i
		}
	}
	return low
}

// firstLook is on how many windows every entrant is screened.
func (r *race) firstLook() int { return min(max(r.windows/looks, MinVerify), r.windows) }

// above returns P(T > d/√v) for Student's t with f degrees of freedom. Without
// variance that is certain.
func above(d, v, f float64) float64 {
	if v == 0 {
		if d < 0 {
			return 1
		}
		return 0
	}
	tail := mathext.RegIncBeta(f/2, 0.5, f/(f+d*d/v)) / 2
	if d < 0 {
		return 1 - tail
	}
	return tail
}

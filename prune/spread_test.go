package prune

import (
	"encoding/json"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
)

// randomScores are spread over some ten octaves, a few of them zeros.
func randomScores(n int, seed uint64) []float32 {
	rng := splitmix.Source(seed)
	x := make([]float32, n)
	for i := range x {
		u := float64(rng.Next()>>11) / (1 << 53)
		x[i] = float32(math.Exp(4 * (u - 1) * (1 + u)))
		if i%997 == 0 {
			x[i] = 0
		}
	}
	return x
}

// The histogram, the curve and its coefficient are those of a sort, on any number of
// threads.
func TestSpreadEqualsASort(t *testing.T) {
	const rows, cols = 300, 517
	x := randomScores(rows*cols, 1)
	target := pattern.Target{Sparsity: share(t, "50%"), Group: pattern.Row}
	m, err := mask.Select(x, rows, cols, target)
	if err != nil {
		t.Fatal(err)
	}
	got := new(spreads).of(x, m)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(5))
	if again := new(spreads).of(x, m); !reflect.DeepEqual(got, again) {
		t.Errorf("on other threads: %+v, want %+v", again, got)
	}
	if err := got.check(); err != nil || len(got.Kept) != MaxBins {
		t.Fatalf("%d bins: %v", len(got.Kept), err)
	}
	var kept, pruned [MaxBins]int
	var lost []float64
	below := 0
	for i, v := range x {
		bin := 0
		for bin < MaxBins-1 && v >= got.Edges[bin+1] {
			bin++
		}
		if v < got.Edges[0] {
			below++
		}
		if m.Kept(i/cols, i%cols) {
			kept[bin]++
		} else {
			pruned[bin]++
			lost = append(lost, float64(v))
		}
	}
	if !slices.Equal(got.Kept, kept[:]) || !slices.Equal(got.Pruned, pruned[:]) {
		t.Errorf("kept %v, pruned %v, want %v and %v", got.Kept, got.Pruned, kept, pruned)
	}
	if top := slices.Max(x); below > len(x)/500 || !(top < got.Edges[MaxBins]) {
		t.Errorf("%d of %d scores lie below the first edge; the highest is %v, the last edge %v", below, len(x), top, got.Edges[MaxBins])
	}
	slices.Sort(lost)
	sums, total, weighted := []float64{0}, 0.0, 0.0
	for i, v := range lost {
		total += v
		weighted += (2*float64(i+1) - float64(len(lost)) - 1) * v
		sums = append(sums, total)
	}
	for _, p := range got.Lorenz {
		at := int(math.Round(p[0] * float64(len(lost))))
		if want := sums[at] / total; !(math.Abs(p[1]-want) <= 1e-5) { // both ends are rounded to six decimals
			t.Errorf("Lorenz curve at %v: %v, want %v", p[0], p[1], want)
		}
	}
	if want := weighted / (float64(len(lost)) * total); !(math.Abs(got.Gini-want) < 1e-4) || got.Gini > want {
		t.Errorf("Gini %v, want %v or a little less", got.Gini, want)
	}
	if n := len(got.Lorenz); n < MaxBins/2 || n > MaxBins+1 {
		t.Errorf("%d points of the curve", n)
	}
}

func share(t *testing.T, s string) pattern.Sparsity {
	t.Helper()
	v, err := pattern.ParseSparsity(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestThreshold(t *testing.T) {
	x := []float32{1, 4, 2, 3, 8, 5, 7, 6, 10, 11, 12, 9}
	for _, c := range []struct {
		target pattern.Target
		want   *Threshold
	}{
		{pattern.Target{Sparsity: share(t, "50%"), Group: pattern.Matrix}, &Threshold{"matrix", 6, 6, 6}},
		{pattern.Target{Sparsity: share(t, "50%"), Group: pattern.Row}, &Threshold{"row", 2, 6, 10}},
		{pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}, nil},
		{pattern.Target{Sparsity: share(t, "0%"), Group: pattern.Row}, nil},
	} {
		m, err := mask.Select(x, 3, 4, c.target)
		if err != nil {
			t.Fatal(err)
		}
		j := &job{scores: x, kept: m, target: c.target}
		if got := thresholdOf(j.cuts(), c.target.Group); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, want %+v", c.target, got, c.want)
		}
	}
}

// What has no curve has none, and leaves nothing behind.
func TestSpreadOfOddScores(t *testing.T) {
	all, err := mask.Select(make([]float32, 8), 2, 4, pattern.Target{Sparsity: share(t, "50%"), Group: pattern.Matrix})
	if err != nil {
		t.Fatal(err)
	}
	inf := float32(math.Inf(1))
	s := new(spreads)
	for _, x := range [][]float32{{1, 2, 3, 4, -1, 1, 1, 1}, {1, 2, 3, 4, 1, 1, 1, inf}} {
		if got := s.of(x, all); got != nil {
			t.Errorf("%v: %+v, want nothing", x, got)
		}
	}
	zero := s.of([]float32{0, 0, 0, 0, 0, 0, float32(math.Copysign(0, -1)), 0}, all)
	if zero == nil || !slices.Equal(zero.Pruned, []int{4}) || !slices.Equal(zero.Kept, []int{4}) || zero.Lorenz != nil || zero.Gini != 0 {
		t.Errorf("zeros: %+v", zero)
	}
	one := s.of([]float32{0, 0, 0, 0, 3, 3, 3, 3}, all)
	if one == nil || one.check() != nil || sum(one.Pruned) != 4 || sum(one.Kept) != 4 {
		t.Errorf("two values: %+v", one)
	}
}

func sum(x []int) (n int) {
	for _, v := range x {
		n += v
	}
	return n
}

func TestMeasuresAreChecked(t *testing.T) {
	good := Measures{Version: 1, Linears: []LinearMeasure{{Name: "l", Scores: []Scores{{Edges: []float32{1, 2}, Kept: []int{1}, Pruned: []int{0}}}}}}
	text := func(change func(m *Measures)) string {
		m := good
		m.Linears = slices.Clone(good.Linears)
		m.Linears[0].Scores = slices.Clone(good.Linears[0].Scores)
		change(&m)
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := func(m *Measures) *Scores { return &m.Linears[0].Scores[0] }
	for want, text := range map[string]string{
		"":                  text(func(*Measures) {}),
		"version 2":         text(func(m *Measures) { m.Version = 2 }),
		"version 0":         `{}`,
		"between 1 edges":   text(func(m *Measures) { first(m).Edges = []float32{1} }),
		"1 and 0 counts":    text(func(m *Measures) { first(m).Pruned = nil }),
		"bin 0 from 2 to 1": text(func(m *Measures) { first(m).Edges = []float32{2, 1} }),
		"-1 kept":           text(func(m *Measures) { first(m).Kept = []int{-1} }),
		"unexpected end":    `{`,
	} {
		if _, err := parseMeasures([]byte(text)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzMeasures(f *testing.F) {
	f.Add([]byte(`{"version":1,"linears":[{"name":"l","scores":[{"edges":[1,2],"kept":[1],"pruned":[0]}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m *Measures
		var err error
		golden.Ceiling(t, uint64(256<<10+200*len(text)), func() { m, err = parseMeasures(text) })
		if err == nil && m.Version != MeasuresVersion {
			t.Errorf("version %d", m.Version)
		}
	})
}

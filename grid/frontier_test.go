package grid

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pack"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/search/store"
)

func TestRank(t *testing.T) {
	// point has a size, a speed, that of the dense model beside it, and a divergence.
	point := func(bytes int64, decode, dense, kl float64) Point {
		return Point{Bytes: bytes, Decode: decode, Dense: dense, KL: eval.Number(kl)}
	}
	inf := math.Inf(1)
	for name, c := range map[string]struct {
		points []Point
		want   string // by size, those that nothing dominates are 1
	}{
		"alone":                      {[]Point{point(5, 1, 1, 0)}, "1"},
		"each is better in one":      {[]Point{point(3, 10, 10, 0), point(2, 5, 10, 1), point(1, 4, 10, 2)}, "111"},
		"larger":                     {[]Point{point(2, 5, 10, 1), point(1, 5, 10, 1)}, "10"},
		"slower":                     {[]Point{point(2, 5, 10, 1), point(2, 6, 10, 1)}, "01"},
		"says else":                  {[]Point{point(2, 5, 10, 1), point(2, 5, 10, 2)}, "10"},
		"equal":                      {[]Point{point(2, 5, 10, 1), point(2, 5, 10, 1)}, "11"},
		"worse in all":               {[]Point{point(3, 4, 10, 2), point(2, 5, 10, 1), point(4, 10, 10, 0)}, "101"},
		"dense int4 beats a pruned":  {[]Point{point(9, 10, 10, 0), point(5, 8, 10, 1), point(4, 9, 10, 0.5)}, "101"},
		"only the ratio is compared": {[]Point{point(2, 100, 100, 1), point(2, 30, 20, 1)}, "01"},
		"no likelihood":              {[]Point{point(2, 5, 10, inf), point(1, 5, 10, inf), point(3, 1, 10, 7)}, "101"},
		"no number":                  {[]Point{point(2, 5, 10, math.NaN()), point(2, 5, 10, 1)}, "01"},
	} {
		Rank(c.points)
		got := ""
		for i, p := range c.points {
			got += map[bool]string{false: "0", true: "1"}[p.Frontier]
			if i > 0 && p.Bytes < c.points[i-1].Bytes {
				t.Errorf("%s: not sorted by size", name)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A point is what pack and eval make of the cell's folder. What is kept is not measured
// again, nor what was measured before an interruption, and with Again all of it is.
func TestFrontier(t *testing.T) {
	m, dir := small(t), t.TempDir()
	opt, done := options(t, dir)
	defer done()
	opt.Rows, opt.Patterns, opt.Frontier = opt.Rows[:1], []string{"60%"}, true
	ctx, cancel := context.WithCancel(t.Context())
	fresh := 0
	opt.Point = func(p Point) {
		if !p.Kept {
			fresh++
		}
		if p.Method != Dense { // the pruned model is there, and its first point
			cancel()
		}
	}
	if _, err := Run(ctx, m, opt); !errors.Is(err, context.Canceled) || fresh != 4 {
		t.Fatalf("%d points measured, %v, want 4 and the interruption", fresh, err)
	}
	first, err := Run(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(opt.Scratch); !os.IsNotExist(err) {
		t.Errorf("%s is left (%v)", opt.Scratch, err)
	}
	if len(first.Frontier) != 6 || fresh != 6 {
		t.Fatalf("%d points, %d measured, want 6", len(first.Frontier), fresh)
	}

	sparse := filepath.Join(t.TempDir(), "sparse")
	if _, err := prune.Run(t.Context(), m.Inv, m.M, prune.Options{Recipe: *first.Cells[0].Recipe, Output: sparse}); err != nil {
		t.Fatal(err)
	}
	marked := 0
	for _, p := range first.Frontier {
		folder := map[bool]string{true: m.Dir, false: sparse}[p.Method == Dense]
		if p.Method != Dense || p.Values != "bf16" {
			folder = packedAs(t, folder, p.Values)
		}
		inv, err := checkpoint.Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer inv.Close()
		packed, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
		if err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		for _, x := range inv.Tensors() {
			size += inv.Stored(x)
		}
		want, err := eval.Perplexity(t.Context(), packed, m.Evaluation.Tokens, eval.Options{})
		if err != nil {
			t.Fatal(err)
		}
		apart, err := eval.Against(t.Context(), packed, m.M, m.Evaluation.Tokens, eval.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Bytes != size || p.Perplexity != want || float64(p.KL) != apart.KL.Mean || !(p.Decode > 0 && p.Dense > 0) {
			t.Errorf("%s, %s: %+v, want %d bytes, %+v, KL %v", p.Name(), p.Values, p, size, want, apart.KL.Mean)
		}
		if p.Frontier {
			marked++
		}
	}
	if marked == 0 {
		t.Error("no point is marked")
	}

	again := func(want int) *ModelReport {
		t.Helper()
		fresh = 0
		r, err := Run(t.Context(), m, opt)
		if err != nil || fresh != want {
			t.Fatalf("%d points measured, want %d (%v)", fresh, want, err)
		}
		return r
	}
	if r := again(0); !reflect.DeepEqual(unkept(r.Frontier), unkept(first.Frontier)) {
		t.Errorf("kept: %+v, want %+v", r.Frontier, first.Frontier)
	}
	// An interruption came between a point's two records.
	study, err := opt.Store.Study(t.Context(), study, nil)
	if err != nil {
		t.Fatal(err)
	}
	remove := func(kind string, n int) {
		t.Helper()
		records, err := study.Records(t.Context(), kind)
		if err != nil || len(records) <= n {
			t.Fatalf("%d records of a %s, want more than %d (%v)", len(records), kind, n, err)
		}
		if err := study.Remove(t.Context(), kind, records[n].Key); err != nil {
			t.Fatal(err)
		}
	}
	remove(speedKind, 5)
	remove(speedKind, 4)
	remove(pointKind, 5)
	for i, p := range again(2).Frontier {
		if q := first.Frontier[i]; p.Bytes != q.Bytes || p.KL != q.KL || p.Perplexity != q.Perplexity {
			t.Errorf("after an interruption %+v, want %+v", p, q)
		}
	}
	opt.Again = true
	again(6)
	opt.Again = false

	var text, lines bytes.Buffer
	rep := &Report{Methods: []string{"magnitude"}, Patterns: opt.Patterns, Models: []ModelReport{*again(0)}}
	if err := rep.Write(&text, "markdown"); err != nil || strings.Count(text.String(), "| magnitude at 60% |") != 3 || strings.Count(text.String(), "| dense |") != 3 {
		t.Errorf("%s (%v)", text.String(), err)
	}
	if err := rep.Write(&lines, "csv"); err != nil {
		t.Fatal(err)
	}
	if all, err := csv.NewReader(&lines).ReadAll(); err != nil || len(all) != 7 || all[1][0] != "small" {
		t.Errorf("%v (%v)", all, err)
	}
	saved, err := store.Read(t.Context(), filepath.Join(dir, "g.study"))
	if err != nil {
		t.Fatal(err)
	}
	points, err := ReadPoints(&saved[0])
	if err != nil || len(points) != 6 {
		t.Fatalf("%d points saved, want 6 (%v)", len(points), err)
	}
	for _, p := range points {
		p.Point.Frontier = false
		q := rep.Models[0].find(p.Method, p.Pattern, p.Values)
		q.Frontier, q.Kept = false, false
		if p.Model != "small" || p.Point != q {
			t.Errorf("saved %+v, want %+v", p, q)
		}
	}
}

func (m *ModelReport) find(method, pattern, values string) Point {
	for _, p := range m.Frontier {
		if p.Method == method && p.Pattern == pattern && p.Values == values {
			return p
		}
	}
	return Point{}
}

// packedAs returns a folder that crepe pack makes of another.
func packedAs(t *testing.T, folder, values string) string {
	t.Helper()
	m := open(t, folder)
	dir := filepath.Join(t.TempDir(), values)
	for _, v := range pack.Values {
		if v.Name == values {
			if _, err := pack.Folder(t.Context(), m.Inv, m.M, pack.Options{Output: dir, Integers: v.Integers}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// unkept returns points without what tells a kept one.
func unkept(points []Point) []Point {
	var out []Point
	for _, p := range points {
		p.Kept = false
		out = append(out, p)
	}
	return out
}

package prune

import (
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// A weight of two parts, interleaved by rows, is written only as it was selected:
// one pruned weight that is not zero, a mask of another count, and a group that an
// update left too dense are errors that name the part and the place.
func TestVerify(t *testing.T) {
	nm := pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}
	const rows, cols = 8, 8
	order := []int{0, 2, 4, 6, 1, 3, 5, 7}
	parts := []model.Part{{Name: "query", Lo: 0, Hi: 6, Run: 2, Step: 4}, {Name: "gate", Lo: 2, Hi: 8, Run: 2, Step: 4}}
	scores := make([]float32, rows/2*cols)
	for i := range scores {
		scores[i] = float32((i*7 + 3) % 11)
	}
	// prune makes w and what was selected of its parts.
	prune := func(selects bool) (*tensor.Weight, []*job) {
		w := tensor.NewWeight(tensor.BF16, rows, cols)
		for i := range w.Bytes() {
			w.Bytes()[i] = 0x3f
		}
		var all []*job
		for _, p := range parts {
			kept, err := mask.SelectIn(scores, rows/2, cols, nm.Pattern, order)
			if err != nil {
				t.Fatal(err)
			}
			own := p.Take(w)
			kept.Apply(own)
			p.Return(w, own)
			s := &job{part: p, kept: kept, target: nm}
			if selects {
				s.kept, s.order = nil, order
			}
			all = append(all, s)
		}
		return w, all
	}
	for _, selects := range []bool{false, true} {
		w, all := prune(selects)
		if err := verify(w, all); err != nil {
			t.Fatalf("update selects %v: %v", selects, err)
		}
		bytes := w.Bytes()
		for k := range rows * cols {
			if bytes[2*k] != 0 {
				continue
			}
			bytes[2*k] = 1
			part, want := "query", "but its mask prunes it"
			if k/cols%4 >= 2 {
				part = "gate"
			}
			if selects {
				want = "1 pruned, want at least 2 (pattern 2:4)"
			}
			if err := verify(w, all); err == nil || !strings.HasPrefix(err.Error(), "part "+part+": ") || !strings.Contains(err.Error(), want) {
				t.Errorf("update selects %v: weight %d is not zero: error %v, want %q of part %s", selects, k, err, want, part)
			}
			bytes[2*k] = 0
		}
		if selects {
			continue
		}
		all[1].kept, _ = mask.SelectIn(scores, rows/2, cols, pattern.Pattern{Keep: 1, Of: 4}, order)
		if err := verify(w, all); err == nil || !strings.Contains(err.Error(), "part gate: mask: row 0, columns [0 2 4 6]: 3 pruned, want 2 (pattern 2:4)") {
			t.Errorf("a mask that prunes more: error %v", err)
		}
	}
}

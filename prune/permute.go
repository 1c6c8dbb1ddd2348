package prune

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/permute"
	"github.com/crepe-llm/crepe/tensor"
)

// Permutation is the order of the columns in which a Linear, or a part of it,
// holds N:M: W[:, order] and the input in the same order give the same output.
type Permutation struct {
	Part string `json:"part,omitempty"` // of a split Linear

	// Its rows: First to End-1, or, where Step is not 0, the first Run of every
	// Step of them.
	First int `json:"first_row,omitempty"`
	End   int `json:"end_row"`
	Run   int `json:"run,omitempty"`
	Step  int `json:"step,omitempty"`

	Before float64 `json:"retained_before,omitempty"` // score that is kept without it
	After  float64 `json:"retained_after,omitempty"`  // and with it
	Order  Order   `json:"order,omitempty"`           // empty: the columns as they are keep no less
}

// Order is an order of columns: position k holds column Order[k]. In JSON it is
// the base64 of little-endian 16-bit numbers, of 32-bit ones where there are more
// columns than 65536.
type Order []int

// MarshalJSON writes the base64.
func (o Order) MarshalJSON() ([]byte, error) {
	var data []byte
	for _, j := range o {
		if len(o) <= 1<<16 {
			data = binary.LittleEndian.AppendUint16(data, uint16(j))
		} else {
			data = binary.LittleEndian.AppendUint32(data, uint32(j))
		}
	}
	return json.Marshal(data)
}

// UnmarshalJSON reads it.
func (o *Order) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return fmt.Errorf("order of columns: %w", err)
	}
	*o = nil
	if len(data) <= 2<<16 {
		for ; len(data) >= 2; data = data[2:] {
			*o = append(*o, int(binary.LittleEndian.Uint16(data)))
		}
		return nil
	}
	for ; len(data) >= 4; data = data[4:] {
		*o = append(*o, int(binary.LittleEndian.Uint32(data)))
	}
	return nil
}

// permutationOf returns what is known before an order is.
func permutationOf(p model.Part) Permutation {
	return Permutation{Part: p.Name, First: p.Lo, End: p.Hi, Run: p.Run, Step: p.Step}
}

// Within reports whether p is of rows of a Linear that has so many.
func (p *Permutation) Within(rows int) bool {
	if p.First < 0 || p.First >= p.End || p.End > rows {
		return false
	}
	return p.Step == 0 || 0 < p.Run && p.Run <= p.Step && (p.End-p.First-p.Run)%p.Step == 0
}

// Take returns the rows of w that p is of.
func (p *Permutation) Take(w *tensor.Weight) *tensor.Weight {
	return model.Part{Lo: p.First, Hi: p.End, Run: p.Run, Step: p.Step}.Take(w)
}

// ordering finds the order in which the columns of the matrix are put for N:M.
func ordering(m permute.Method, p param.Values, to pattern.Pattern) step {
	return step{
		seconds: func(s *Seconds) *float64 { return &s.Permute },
		cost:    func(rows, cols int) cost { return cost{brief: permute.Bytes(rows, cols, to)} },
		run: func(_ context.Context, j *job) error {
			scores, err := j.hostScores()
			if err != nil {
				return err
			}
			found := m.Find(scores, j.w.Rows, j.w.Cols, to, m.Blocks(p, placeOf(j.linear)))
			note := permutationOf(j.part)
			note.Before, note.After, note.Order = found.Before, found.After, found.Order
			j.report.Permuted = append(j.report.Permuted, note)
			j.order = found.Order
			return nil
		},
	}
}

// placeOf returns where in its block l is.
func placeOf(l *model.Linear) permute.Place {
	switch {
	case l.Attention:
		return permute.Attention
	case l.Output:
		return permute.FeedForwardOut
	}
	return permute.FeedForward
}

// Permuted returns how many Linears, or parts of them, were permuted, how many of
// these keep another order of columns, and by what share their retained scores
// rose in the mean.
func (r *Report) Permuted() (linears, moved int, gain float64) {
	for _, l := range r.Linears {
		for _, p := range l.Permuted {
			linears++
			if len(p.Order) > 0 {
				moved++
			}
			if p.Before > 0 {
				gain += p.After/p.Before - 1
			}
		}
	}
	return linears, moved, gain / math.Max(1, float64(linears))
}

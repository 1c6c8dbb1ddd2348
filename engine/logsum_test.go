package engine

import (
	"math"
	"testing"
)

func TestLogSumOfFarApartParts(t *testing.T) {
	var s LogSum
	for _, part := range [][2]float64{{-900, 1 + math.Exp(-100)}, {800, 2}, {-5, 1}} {
		s.Add(part[0], part[1])
	}
	if got, want := s.Log(), 800+math.Ln2; !(math.Abs(got-want) <= 1e-12*want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

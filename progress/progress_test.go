package progress

import (
	"slices"
	"testing"
)

// Two blocks of three sequences: the whole counts six, each part three.
func TestParts(t *testing.T) {
	var got []Update
	b := Func(func(u Update) { got = append(got, u) }).Start("prune", 6, "sequences")
	b.Part("block 1", 3)
	b.Add(2)
	b.Phase("block 1, still")
	b.Add(1)
	b.Part("block 2", 3)
	b.Set(4)
	want := []Update{
		{"prune", 0, 6, "sequences", 0, 6},
		{"block 1", 0, 6, "sequences", 0, 3},
		{"block 1", 2, 6, "sequences", 2, 3},
		{"block 1, still", 2, 6, "sequences", 2, 3},
		{"block 1, still", 3, 6, "sequences", 3, 3},
		{"block 2", 3, 6, "sequences", 0, 3},
		{"block 2", 4, 6, "sequences", 1, 3},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestBytes(t *testing.T) {
	var got []Update
	report := Func(func(u Update) { got = append(got, u) }).Bytes("hash")
	report(3, 8)
	report(8, 8)
	want := []Update{{"hash", 0, 8, "bytes", 0, 8}, {"hash", 3, 8, "bytes", 3, 8}, {"hash", 8, 8, "bytes", 8, 8}}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// A step that nobody listens to.
func TestNil(t *testing.T) {
	b := Func(nil).Start("prune", 1, "blocks")
	b.Part("block 1", 1)
	b.Add(1)
}

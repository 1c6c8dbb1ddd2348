package registry

import (
	"slices"
	"testing"
)

func TestLookup(t *testing.T) {
	all := []string{"b", "a"}
	self := func(s string) string { return s }
	if got := Names(all, self); !slices.Equal(got, all) {
		t.Errorf("names %v, want %v", got, all)
	}
	if got, err := Lookup("letter", "a", all, self); got != "a" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	const want = `unknown letter "c", want one of b, a`
	if got, err := Lookup("letter", "c", all, self); got != "" || err == nil || err.Error() != want {
		t.Errorf("%q, %v; want %s", got, err, want)
	}
}

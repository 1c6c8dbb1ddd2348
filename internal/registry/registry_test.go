package registry

import (
	"slices"
	"testing"
)

func TestLookup(t *testing.T) {
	r := New("letter", func(s string) string { return s }, "b", "a")
	if got := r.Names(); !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("names %v, want b and a", got)
	}
	if got, err := r.Lookup("a"); got != "a" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	const want = `unknown letter "c", want one of b, a`
	if got, err := r.Lookup("c"); got != "" || err == nil || err.Error() != want {
		t.Errorf("%q, %v; want %s", got, err, want)
	}
}

func TestAdd(t *testing.T) {
	r := New("letter", func(s string) string { return s }, "b", "a")
	before := r.All()
	remove := r.Add("c")
	if got, err := r.Lookup("c"); got != "c" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	remove()
	if got := r.Names(); !slices.Equal(got, before) {
		t.Errorf("names %v, want %v", got, before)
	}
	defer func() {
		if recover() == nil {
			t.Error("a name twice is accepted")
		}
	}()
	r.Add("a")
}

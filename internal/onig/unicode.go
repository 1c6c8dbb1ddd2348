package onig

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Oniguruma's character properties and case folds; tools/golden_properties.py
// describes the format.
//
//go:embed unicode.bin.gz
var unicodeData []byte

// tables are the decoded unicodeData.
type tables struct {
	properties map[string]property
	// orbits has for each character that is others but for case all of them,
	// the folded one first.
	orbits map[rune][]rune
	// sequences are the two or three characters that one is but for case.
	sequences []sequence
	byText    map[[3]rune]int // folded sequence → index
	byChar    map[rune]int    // single character → index
}

type property struct {
	set   set
	posix string // the ctype of that name, "" for others
}

// sequence is what the characters fold to: ß and ẞ to ss.
type sequence struct{ folded, chars []rune }

// ctypes are the classes that the options W, D, S and P make ASCII. The POSIX
// class punct is the property posixpunct; \p{Punct} is P.
var ctypes = []string{"alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "posixpunct", "space", "upper", "xdigit", "word", "alnum", "ascii"}

var unicodeTables = sync.OnceValue(func() *tables {
	z, err := gzip.NewReader(bytes.NewReader(unicodeData))
	if err != nil {
		panic(fmt.Sprintf("onig: embedded tables: %v", err))
	}
	data, err := io.ReadAll(z)
	if err != nil {
		panic(fmt.Sprintf("onig: embedded tables: %v", err))
	}
	t := &tables{
		properties: map[string]property{}, orbits: map[rune][]rune{},
		byText: map[[3]rune]int{}, byChar: map[rune]int{},
	}
	number := func() rune {
		x, n := binary.Uvarint(data)
		data = data[n:]
		return rune(x)
	}
	numbers := func(n rune) []rune {
		out := make([]rune, n)
		for i := range out {
			out[i] = number()
		}
		return out
	}
	for {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		if len(line) == 0 {
			break
		}
		t.addProperty(strings.Fields(string(line)), numbers(number()))
	}
	for n := number(); n > 0; n = number() {
		orbit := numbers(n)
		for _, r := range orbit {
			t.orbits[r] = orbit
		}
	}
	for n := number(); n > 0; n = number() {
		s := sequence{folded: numbers(n)}
		s.chars = numbers(number())
		var key [3]rune
		copy(key[:], s.folded)
		t.byText[key] = len(t.sequences)
		for _, r := range s.chars {
			t.byChar[r] = len(t.sequences)
		}
		t.sequences = append(t.sequences, s)
	}
	return t
})

// addProperty enters a set by its names; steps are its bounds, each less the
// one before.
func (t *tables) addProperty(names []string, steps []rune) {
	var p property
	at := rune(0)
	for i := 0; i < len(steps); i += 2 {
		lo := at + steps[i]
		at = lo + steps[i+1]
		p.set = append(p.set, span{lo, at - 1})
	}
	p.set = p.set.normal()
	for _, n := range names {
		if slices.Contains(ctypes, n) {
			p.posix = n
		}
	}
	for _, n := range names {
		t.properties[n] = p
	}
}

// fold returns r in folded form, r itself where that is several characters.
func (t *tables) fold(r rune) rune {
	if o := t.orbits[r]; o != nil {
		return o[0]
	}
	return r
}

// orbit returns the set of the characters that are r but for case, r included.
func (t *tables) orbit(r rune) set {
	if o := t.orbits[r]; o != nil {
		return setOf(o...)
	}
	return setOf(r)
}

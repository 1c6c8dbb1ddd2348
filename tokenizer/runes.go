package tokenizer

import (
	_ "embed"
	"encoding/binary"
	"sync"
	"unicode"
)

// class is a set of Unicode categories that patterns speak of.
type class uint16

const (
	letter  class = 1 << iota // \p{L}
	number                    // \p{N}
	space                     // \s: White_Space
	mark                      // \p{M}
	punct                     // \p{P}
	symbol                    // \p{S}
	upper                     // \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}
	lower                     // \p{Ll}\p{Lm}\p{Lo}\p{M}
	word                      // \w
	numeric                   // what Digits takes for a digit
	delimit                   // what Punctuation takes for punctuation
)

// table is the class of every code point.
type table [unicode.MaxRune + 1]class

// classRuns is the table as Hugging Face's library has it, of a newer Unicode
// than Go's: runs of length and class, varints. See tools/golden_unicode.py.
//
//go:embed classes.bin
var classRuns []byte

// classes returns the table: 2.2 MB, built on first use.
var classes = sync.OnceValue(func() *table {
	t := new(table)
	at := uint64(0)
	for runs := classRuns; len(runs) > 0; {
		length, n := binary.Uvarint(runs)
		c, m := binary.Uvarint(runs[n:])
		runs = runs[n+m:]
		if c != 0 {
			for i := at; i < at+length; i++ {
				t[i] = class(c)
			}
		}
		at += length
	}
	return t
})

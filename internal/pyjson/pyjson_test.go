package pyjson

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

func TestStrict(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": NaN, "b": -Infinity, "c": [Infinity, -1]}`: `{"a": {"NaN":null}, "b": {"-Infinity":null}, "c": [{"Infinity":null}, -1]}`,
		`{"NaN": "Infinity, \"NaN\" \\", "b": "I"}`:       `{"NaN": "Infinity, \"NaN\" \\", "b": "I"}`,
		`{"a": "NaN`: `{"a": "NaN`,
		`NaN`:        `{"NaN":null}`,
		``:           ``,
	} {
		if got := string(Strict([]byte(in))); got != want {
			t.Errorf("Strict(%s) = %s, want %s", in, got, want)
		}
	}
	var n struct{ A, B float64 }
	if err := Unmarshal([]byte(`{"A": 2, "C": NaN}`), &n); err != nil || n.A != 2 {
		t.Errorf("NaN that nothing reads: %v, %v", n, err)
	}
	if err := Unmarshal([]byte(`{"A": NaN}`), &n); err == nil {
		t.Error("NaN that is read as a number: no error")
	}
	for text, want := range map[string]string{"\xef\xbb\xbf{}": "UTF-8 with a byte order mark", "\xff\xfe{\x00}\x00": "UTF-16", "\xfe\xff\x00{\x00}": "UTF-16"} {
		if err := Unmarshal([]byte(text), &n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	const text = `[NaN, {"a": -Infinity}, Infinity, "x"]`
	if got := string(Written(Strict([]byte(text)))); got != text {
		t.Errorf("written: %s, want %s", got, text)
	}
}

func TestText(t *testing.T) {
	for raw, want := range map[string]string{
		`"a\u00e9 \ud83d\ude00 \\ud800 😀"`: "aé 😀 \\ud800 😀",
		`""`:                               "",
	} {
		if got, err := Text([]byte(raw)); err != nil || got != want {
			t.Errorf("Text(%s) = %q, %v, want %q", raw, got, err, want)
		}
	}
	for raw, want := range map[string]string{
		`null`:                               "null, want a string",
		`{"NaN":null}`:                       "NaN, want a string",
		`["a"]`:                              `["a"], want a string`,
		"\"ab\xffc\"":                        "not UTF-8 text: byte 0xff at offset 3",
		`"ab\ud83dc"`:                        `half a surrogate pair: \ud83d at offset 3`,
		`"ab\ud83d"`:                         `half a surrogate pair: \ud83d at offset 3`,
		`"\ude00\ud83d"`:                     `half a surrogate pair: \ude00 at offset 1`,
		`"\ud83d\ud83d\ude00"`:               `half a surrogate pair: \ud83d at offset 1`,
		`[` + strings.Repeat("é", 100) + `]`: strings.Repeat("é", 39) + "…, want a string",
	} {
		if got, err := Text([]byte(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Text(%s) = %q, %v, want %q", raw, got, err, want)
		}
	}
}

// FuzzStrict: what encoding/json reads stays as it is, and nothing becomes longer
// than four times what it was.
func FuzzStrict(f *testing.F) {
	f.Add([]byte(`{"a": NaN, "b": "NaN", "c": -Infinity}`))
	f.Add([]byte(`"ab\ud83d\"NaN`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out []byte
		var text string
		var err error
		golden.Ceiling(t, uint64(64<<10+20*len(data)), func() {
			out = Strict(data)
			text, err = Text(data)
		})
		if json.Valid(data) && string(out) != string(data) {
			t.Errorf("%q became %q", data, out)
		}
		if len(out) > 4*len(data)+16 {
			t.Errorf("%d bytes became %d", len(data), len(out))
		}
		if err == nil && !json.Valid(data) {
			t.Errorf("%q: taken for the JSON string %q", data, text)
		}
	})
}

// What encoding/json says of a value of another type is said without Go's types.
func TestPlain(t *testing.T) {
	type inner struct {
		N int
		S string
		L []float64
		B bool
		F float64
		O map[string]int
	}
	var v struct{ In inner }
	for text, want := range map[string]string{
		`[]`:                                   "array, want an object",
		`{"In": {"N": 1.5}}`:                   "In.N: number 1.5, want a whole number",
		`{"In": {"S": {}}}`:                    "In.S: object, want a string",
		`{"In": {"L": "x"}}`:                   "In.L: string, want an array",
		`{"In": {"B": 1}}`:                     "In.B: number, want true or false",
		`{"In": {"F": NaN}}`:                   "In.F: object, want a number",
		`{"In": {"O": true}}`:                  "In.O: bool, want an object",
		`{"In": `:                              "unexpected end of JSON input",
		"\xef\xbb\xbf{}":                       "text in UTF-8 with a byte order mark, want UTF-8 without a mark",
		`{"In": {"N": 100000000000000000000}}`: "In.N: number 100000000000000000000, want a whole number",
	} {
		err := Unmarshal([]byte(text), &v)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

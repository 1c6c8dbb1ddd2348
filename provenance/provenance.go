// Package provenance says what a result depends on. Whatever keeps results, goes
// on with them or compares them holds their Records against each other, so that a
// number is shown as current only if it would come out the same to the bit.
package provenance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Field is one thing that a result depends on.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Record is all that a result depends on: who computes (the program and the
// engine, which New fills in), and what is asked for: hashes of the weights and
// of the token windows, and every value of the recipe, defaults included. No
// two fields have the same name. Results of equal Records are equal to the bit.
//
// Its JSON, a list in the Record's order, is its canonical form.
type Record []Field

// The fields that say who computes.
const (
	programField = "program"
	engineField  = "engine"
)

// New begins the Record of what this program computes on an engine, whose ID
// tells instruction level and type of products apart.
func New(engine string) (Record, error) {
	p, err := This()
	if err != nil {
		return nil, err
	}
	return Record{{programField, p.String()}, {engineField, engine}}, nil
}

// Hashes returns a field for each file of hashes, "name config.json".
func Hashes(name string, hashes map[string]string) Record {
	var r Record
	for _, file := range slices.Sorted(maps.Keys(hashes)) {
		r = append(r, Field{name + " " + file, hashes[file]})
	}
	return r
}

// Values returns a field for each value in the JSON of v, sorted by name:
// "name eval windows" is the value of "windows" in "eval".
func Values(name string, v any) (Record, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // as they are written
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return appendValues(nil, name, tree), nil
}

func appendValues(r Record, name string, tree any) Record {
	branches, ok := tree.(map[string]any)
	if !ok {
		return append(r, Field{name, fmt.Sprint(tree)})
	}
	for _, key := range slices.Sorted(maps.Keys(branches)) {
		r = appendValues(r, name+" "+key, branches[key])
	}
	return r
}

// Asked is what r asks for, whoever computes it.
func (r Record) Asked() Record { return r.Without(programField, engineField) }

// By is who computes: the program, shortened for people, and the engine.
func (r Record) By() string {
	return fmt.Sprintf("%s by crepe %s", r.Value(engineField), shorten(r.Value(programField)))
}

// Key identifies r: the SHA-256 of its JSON, in hexadecimal.
func (r Record) Key() string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("provenance: Key: %v", err)) // strings always have JSON
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Value returns the value of a field, empty if r has none of that name.
func (r Record) Value(name string) string {
	for _, f := range r {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Asks reports whether r and o ask for the same, whoever computes it. A Record
// of a crepe that did not note its program cannot say, and so does not contradict.
func (r Record) Asks(o Record) bool {
	return r.Value(programField) == "" || o.Value(programField) == "" ||
		slices.Equal(r.Asked(), o.Asked())
}

// Nearest returns, of the records that ask for what now asks for, the one that
// differs least; nil if there is none.
func Nearest(all []Record, now Record) Record {
	var nearest Record
	least := 0
	for _, r := range all {
		if n := len(Diff(r, now)); r.Asks(now) && (nearest == nil || n < least) {
			nearest, least = r, n
		}
	}
	return nearest
}

// Without returns r without the fields called one of names, and those below it:
// "recipe eval" is "recipe eval windows" too.
func (r Record) Without(names ...string) Record {
	return slices.DeleteFunc(slices.Clone(r), func(f Field) bool {
		return slices.ContainsFunc(names, func(name string) bool { return f.Name == name || strings.HasPrefix(f.Name, name+" ") })
	})
}

// Diff says what a result of then differs in from one of now, a sentence each:
// "recipe alpha: 1, this is 0.5". It is empty if and only if they are equal.
func Diff(then, now Record) []string {
	if slices.Equal(then, now) {
		return nil
	}
	out := differing(then, now)
	for i := range out {
		out[i] = shorten(out[i])
	}
	return out
}

func differing(then, now Record) (out []string) {
	if p := now.Value(programField); p != "" && then.Value(programField) == "" {
		return []string{fmt.Sprintf("%s: an older crepe, which did not note itself, made it; this is %s", programField, p)}
	}
	for _, f := range now {
		was := then.Value(f.Name)
		switch {
		case was == f.Value:
		case f.Name == programField:
			out = append(out, fmt.Sprintf("%s: %s made it, this is %s", f.Name, was, f.Value))
		default:
			out = append(out, fmt.Sprintf("%s: %s, this is %s", f.Name, orNone(was), orNone(f.Value)))
		}
	}
	for _, f := range then {
		if !slices.ContainsFunc(now, func(n Field) bool { return n.Name == f.Name }) {
			out = append(out, fmt.Sprintf("%s: %s, this has none", f.Name, orNone(f.Value)))
		}
	}
	if len(out) == 0 {
		return []string{"the same values are noted in another order"}
	}
	return out
}

// Differences is Diff on one line.
func Differences(then, now Record) string { return strings.Join(Diff(then, now), "; ") }

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

var longHash = regexp.MustCompile(`\b([0-9a-f]{12})[0-9a-f]{20,}\b`)

// shorten cuts hashes to what tells them apart for a reader.
func shorten(s string) string { return longHash.ReplaceAllString(s, "$1…") }

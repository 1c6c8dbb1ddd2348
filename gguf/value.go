package gguf

import (
	"fmt"
	"math"
	"slices"
)

// Kind is the type of a metadata value.
type Kind uint32

// The kinds of values.
const (
	Uint8 Kind = iota
	Int8
	Uint16
	Int16
	Uint32
	Int32
	Float32
	Bool
	String
	Array
	Uint64
	Int64
	Float64
)

var kinds = [...]struct {
	name  string
	bytes int // 0: not fixed
}{
	Uint8: {"uint8", 1}, Int8: {"int8", 1}, Uint16: {"uint16", 2}, Int16: {"int16", 2},
	Uint32: {"uint32", 4}, Int32: {"int32", 4}, Float32: {"float32", 4}, Bool: {"bool", 1},
	String: {"string", 0}, Array: {"array", 0}, Uint64: {"uint64", 8}, Int64: {"int64", 8},
	Float64: {"float64", 8},
}

func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k].name
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

func (k Kind) number() bool { return k != Bool && k != String && k != Array }

// Value is a metadata value. It holds the bytes of the file, which take no more
// memory than they took there, and is decoded when it is asked for.
type Value struct {
	Kind Kind // of the elements, if List
	List bool
	Len  int // elements; 1 unless List
	raw  []byte
}

// String says what v is, for errors: a short value itself.
func (v Value) String() string {
	const most = 40
	switch {
	case v.List:
		return fmt.Sprintf("%d × %v", v.Len, v.Kind)
	case v.Kind == String:
		if s := v.strings()[0]; len(s) <= most {
			return fmt.Sprintf("%q", s)
		}
		return fmt.Sprintf("a string of %d bytes", len(v.raw)-8)
	case v.Kind == Bool:
		return fmt.Sprint(v.raw[0] != 0)
	}
	return fmt.Sprint(v.number(0))
}

// number returns element i of numbers. Integers beyond 2⁵³ lose digits, and no
// key has such.
func (v Value) number(i int) float64 {
	b := v.raw[i*kinds[v.Kind].bytes:]
	switch v.Kind {
	case Uint8:
		return float64(b[0])
	case Int8:
		return float64(int8(b[0]))
	case Uint16:
		return float64(le.Uint16(b))
	case Int16:
		return float64(int16(le.Uint16(b)))
	case Uint32:
		return float64(le.Uint32(b))
	case Int32:
		return float64(int32(le.Uint32(b)))
	case Float32:
		return float64(math.Float32frombits(le.Uint32(b)))
	case Uint64:
		return float64(le.Uint64(b))
	case Int64:
		return float64(int64(le.Uint64(b)))
	}
	return math.Float64frombits(le.Uint64(b))
}

// strings returns the elements of strings.
func (v Value) strings() []string {
	all := make([]string, 0, v.Len)
	for b := v.raw; len(b) > 0; {
		n := le.Uint64(b)
		all = append(all, string(b[8:8+n]))
		b = b[8+n:]
	}
	return all
}

// Metadata are the keys of a file in their order.
type Metadata struct {
	keys   []string
	values map[string]Value
}

// Keys returns the keys in the file's order.
func (m *Metadata) Keys() []string { return slices.Clone(m.keys) }

// Get returns the value of a key.
func (m *Metadata) Get(key string) (Value, bool) {
	v, ok := m.values[key]
	return v, ok
}

// Has reports whether a key is there.
func (m *Metadata) Has(key string) bool { _, ok := m.values[key]; return ok }

func (m *Metadata) set(key string, v Value) {
	if m.values == nil {
		m.values = map[string]Value{}
	}
	if !m.Has(key) {
		m.keys = append(m.keys, key)
	}
	m.values[key] = v
}

// wrong is the error for a value that is not what is wanted, or not there.
func (m *Metadata) wrong(key, want string) error {
	if v, ok := m.values[key]; ok {
		return fmt.Errorf("key %s: %v, want %s", key, v, want)
	}
	return fmt.Errorf("key %s: missing, want %s", key, want)
}

// Int returns an integer of any kind that lies in [least, most].
func (m *Metadata) Int(key string, least, most int) (int, error) {
	v, ok := m.values[key]
	if ok && !v.List && v.Kind.number() {
		if n := v.number(0); n == math.Trunc(n) && n >= float64(least) && n <= float64(most) {
			return int(n), nil
		}
	}
	return 0, m.wrong(key, fmt.Sprintf("a whole number in [%d, %d]", least, most))
}

// Float returns a finite number.
func (m *Metadata) Float(key string) (float64, error) {
	v, ok := m.values[key]
	if ok && !v.List && v.Kind.number() {
		if f := v.number(0); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, nil
		}
	}
	return 0, m.wrong(key, "a finite number")
}

// Bool returns a truth value.
func (m *Metadata) Bool(key string) (bool, error) {
	if v, ok := m.values[key]; ok && !v.List && v.Kind == Bool {
		return v.raw[0] != 0, nil
	}
	return false, m.wrong(key, "a bool")
}

// Text returns a string.
func (m *Metadata) Text(key string) (string, error) {
	if v, ok := m.values[key]; ok && !v.List && v.Kind == String {
		return v.strings()[0], nil
	}
	return "", m.wrong(key, "a string")
}

// Texts returns a list of strings.
func (m *Metadata) Texts(key string) ([]string, error) {
	if v, ok := m.values[key]; ok && v.List && v.Kind == String {
		return v.strings(), nil
	}
	return nil, m.wrong(key, "an array of strings")
}

// Floats returns a list of numbers.
func (m *Metadata) Floats(key string) ([]float64, error) {
	v, ok := m.values[key]
	if !ok || !v.List || !v.Kind.number() {
		return nil, m.wrong(key, "an array of numbers")
	}
	all := make([]float64, v.Len)
	for i := range all {
		all[i] = v.number(i)
	}
	return all, nil
}

// Bools returns a list of truth values.
func (m *Metadata) Bools(key string) ([]bool, error) {
	v, ok := m.values[key]
	if !ok || !v.List || v.Kind != Bool {
		return nil, m.wrong(key, "an array of bools")
	}
	all := make([]bool, v.Len)
	for i := range all {
		all[i] = v.raw[i] != 0
	}
	return all, nil
}

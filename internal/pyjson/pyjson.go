// Package pyjson reads JSON as Python's json module writes it, where
// encoding/json is too strict or too lenient: Python writes NaN and Infinity as
// names, which are no JSON, and encoding/json puts replacement characters where
// a string is broken.
package pyjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// names are the numbers that Python writes and JSON has not.
var names = []string{"NaN", "Infinity", "-Infinity"}

// Strict returns data with each NaN, Infinity and -Infinity outside a string
// replaced by an object, {"NaN":null} and so on, which nobody takes for a number:
// what nothing reads may hold them. Where there is none it is data itself.
func Strict(data []byte) []byte {
	var out []byte // once something is replaced
	from := 0
	for at := 0; at < len(data); {
		switch data[at] {
		case '"':
			at = endOfString(data, at)
			continue
		case 'N', 'I', '-':
			if name := nameAt(data[at:]); name != "" {
				out = fmt.Appendf(append(out, data[from:at]...), `{"%s":null}`, name)
				at += len(name)
				from = at
				continue
			}
		}
		at++
	}
	if from == 0 {
		return data
	}
	return append(out, data[from:]...)
}

// nameAt returns the name that data begins with, "" if there is none.
func nameAt(data []byte) string {
	for _, name := range names {
		if bytes.HasPrefix(data, []byte(name)) {
			return name
		}
	}
	return ""
}

// endOfString returns the offset after the string that begins at offset at, the
// end of data if it has none.
func endOfString(data []byte, at int) int {
	for at++; at < len(data); at++ {
		switch data[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return len(data)
}

// Written returns a value of Strict's as it was written, for people to read.
func Written(value []byte) []byte {
	for _, name := range names {
		value = bytes.ReplaceAll(value, fmt.Appendf(nil, `{"%s":null}`, name), []byte(name))
	}
	return value
}

// Unmarshal is json.Unmarshal of Strict(data). What begins with the mark of an
// encoding is called that.
func Unmarshal(data []byte, v any) error {
	for mark, encoding := range map[string]string{"\xef\xbb\xbf": "UTF-8 with a byte order mark", "\xff\xfe": "UTF-16", "\xfe\xff": "UTF-16"} {
		if bytes.HasPrefix(data, []byte(mark)) {
			return fmt.Errorf("text in %s, want UTF-8 without a mark", encoding)
		}
	}
	return Plain(json.Unmarshal(Strict(data), v))
}

// Record reads an object that crepe wrote: json.Unmarshal, which takes null for any
// object, but in plain words and of an object only.
func Record(data []byte, v any) error {
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return errors.New("null, want an object")
	}
	return Plain(json.Unmarshal(data, v))
}

// Plain returns an error of encoding/json without the names of Go's types in its text.
func Plain(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	text := fmt.Sprintf("%s, want %s", wrong.Value, wanted(wrong.Type))
	if wrong.Field != "" {
		text = wrong.Field + ": " + text
	}
	return &plainError{err, text}
}

type plainError struct {
	err  error
	text string
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// wanted says what JSON has for values of a type.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number" // or one that is not too large
}

// Text returns the string that raw, a JSON value, is. Bytes that are not UTF-8
// and escaped halves of surrogate pairs are errors that name their offset in
// raw, where encoding/json would replace them.
func Text(raw []byte) (string, error) {
	if err := CheckUTF8(raw); err != nil {
		return "", err
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fmt.Errorf("%s, want a string", excerpt(Written(raw)))
	}
	return *s, CheckSurrogates(raw)
}

// excerpt is the beginning of a JSON value.
func excerpt(raw []byte) string {
	const most = 40 // runes
	if text := []rune(string(raw[:min(len(raw), 4*most+4)])); len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(raw)
}

// CheckUTF8 returns an error that names the first byte of data which is not of
// UTF-8, and its offset.
func CheckUTF8(data []byte) error {
	if utf8.Valid(data) {
		return nil
	}
	at := 0
	for r, n := utf8.DecodeRune(data); r != utf8.RuneError || n != 1; r, n = utf8.DecodeRune(data[at:]) {
		at += n
	}
	return fmt.Errorf("not UTF-8 text: byte %#x at offset %d", data[at], at)
}

// CheckSurrogates returns an error if one of the strings in raw, a valid JSON
// value, has an escape \ud800 to \udfff that is not of a high and a low one, with
// its offset in raw.
func CheckSurrogates(raw []byte) error {
	for at := 0; at < len(raw); at++ {
		if raw[at] != '\\' {
			continue
		}
		at++
		if raw[at] != 'u' {
			continue
		}
		start := at - 1
		r := escape(raw[at:])
		at += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		if len(raw) < at+7 || raw[at+1] != '\\' || raw[at+2] != 'u' || utf16.DecodeRune(r, escape(raw[at+2:])) == utf8.RuneError {
			return fmt.Errorf("half a surrogate pair: %s at offset %d", raw[start:start+6], start)
		}
		at += 6
	}
	return nil
}

// escape returns the number of "uXXXX", which a JSON parser has seen to be one.
func escape(raw []byte) rune {
	v, _ := strconv.ParseUint(string(raw[1:5]), 16, 16)
	return rune(v)
}

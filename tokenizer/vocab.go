package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// reader walks over JSON that encoding/json has found valid: the two large
// members of tokenizer.json are read without reflection, several times faster.
type reader struct {
	data []byte
	pos  int
}

// next skips white space and returns the byte there without taking it; 0 at the
// end.
func (r *reader) next() byte {
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; c {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return c
		}
	}
	return 0
}

// take takes c if it comes next.
func (r *reader) take(c byte) bool {
	if r.next() != c {
		return false
	}
	r.pos++
	return true
}

// string reads a string.
func (r *reader) string() (string, error) {
	if r.next() != '"' {
		return "", fmt.Errorf("offset %d: want a string", r.pos)
	}
	start := r.pos
	escaped := false
	for i := start + 1; i < len(r.data); i++ {
		switch r.data[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			r.pos = i + 1
			if !escaped {
				return strings.ToValidUTF8(string(r.data[start+1:i]), "\uFFFD"), nil
			}
			var s string
			err := json.Unmarshal(r.data[start:r.pos], &s)
			return s, err
		}
	}
	return "", fmt.Errorf("offset %d: a string that does not end", start)
}

// maxHint limits what is allocated ahead by counting separators, which may stand
// in strings too.
const maxHint = 1 << 18

// vocabulary reads {"token": id, …}.
func vocabulary(raw []byte) (map[string]int32, error) {
	r := reader{data: raw}
	if !r.take('{') {
		return nil, fmt.Errorf("want an object")
	}
	vocab := make(map[string]int32, min(bytes.Count(raw, []byte{':'}), maxHint))
	for !r.take('}') {
		r.take(',')
		tok, err := r.string()
		if err != nil {
			return nil, err
		}
		r.take(':')
		r.next()
		start := r.pos
		for r.pos < len(raw) && raw[r.pos] != ',' && raw[r.pos] != '}' {
			r.pos++
		}
		id := bytes.TrimSpace(raw[start:r.pos])
		n, err := strconv.ParseUint(string(id), 10, 64)
		if err != nil || n > math.MaxInt32 {
			return nil, fmt.Errorf("token %.60q: id %s, want a number from 0 to %d", tok, clip(id), math.MaxInt32)
		}
		if len(vocab) == maxVocab {
			return nil, fmt.Errorf("more than %d tokens are not supported", maxVocab)
		}
		vocab[tok] = int32(n)
	}
	return vocab, nil
}

// mergeList reads the merges: ["a b", …] or [["a", "b"], …].
func mergeList(raw []byte) ([][2]string, error) {
	r := reader{data: raw}
	if !r.take('[') {
		return nil, fmt.Errorf("want an array")
	}
	merges := make([][2]string, 0, min(bytes.Count(raw, []byte{','})/2+1, maxHint))
	for i := 0; !r.take(']'); i++ {
		r.take(',')
		if r.next() != '[' {
			line, err := r.string()
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(line, "#version") { // the first line of merges.txt
				continue
			}
			a, b, ok := strings.Cut(line, " ")
			if !ok || strings.Contains(b, " ") {
				return nil, fmt.Errorf("entry %d: %.60q, want two tokens with one space between", i, line)
			}
			merges = append(merges, [2]string{a, b})
			continue
		}
		r.take('[')
		a, err := r.string()
		if err != nil {
			return nil, err
		}
		r.take(',')
		b, err := r.string()
		if err != nil {
			return nil, err
		}
		if !r.take(']') {
			return nil, fmt.Errorf("entry %d: want two tokens", i)
		}
		merges = append(merges, [2]string{a, b})
	}
	return merges, nil
}

// clip shortens a value for an error message.
func clip(b []byte) []byte { return b[:min(len(b), 40)] }

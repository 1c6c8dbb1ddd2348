package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/crepe-llm/crepe/internal/pyjson"
)

// keys reads the values of one JSON object of config.json. It keeps the first
// error and returns zero values after it, so that a class reads all its keys
// and asks once.
type keys struct {
	path string // "" at the top, "rope_scaling." inside
	raw  map[string]json.RawMessage
	err  *error // shared with the objects inside
}

func parseKeys(data []byte) (*keys, error) {
	k := &keys{err: new(error)}
	if err := pyjson.Unmarshal(data, &k.raw); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("%s, want an object", wrong.Value)
		}
		return nil, err
	}
	if k.raw == nil {
		return nil, fmt.Errorf("null, want an object")
	}
	return k, nil
}

// failf records that the value of a key is not what it must be.
func (k *keys) failf(name, format string, args ...any) {
	if *k.err != nil {
		return
	}
	value := "missing"
	if raw, ok := k.raw[name]; ok {
		value = clip(raw)
	}
	*k.err = fmt.Errorf("%s%s: %s, want %s", k.path, name, value, fmt.Sprintf(format, args...))
}

// clip shortens a value for an error.
func clip(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		b.Reset()
		b.Write(raw)
	}
	return excerpt(string(pyjson.Written(b.Bytes())))
}

// excerpt returns the beginning of a text, without what would do something to a
// terminal.
func excerpt(s string) string {
	const most = 60 // bytes
	cut := len(s) > most
	if cut {
		s = strings.ToValidUTF8(s[:most], "")
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}

// present reports whether the key is there, even if its value is null.
func (k *keys) present(name string) bool { _, ok := k.raw[name]; return ok }

// set reports whether the key is there with a value other than null.
func (k *keys) set(name string) bool {
	raw, ok := k.raw[name]
	return ok && !bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

// holds reports whether the key is there with a value that Python takes for true: what
// a class reads in "if a and b".
func (k *keys) holds(name string) bool {
	text := string(bytes.TrimSpace(k.raw[name]))
	v, err := strconv.ParseFloat(text, 64)
	return k.set(name) && text != "false" && (err != nil || v != 0)
}

// nullable are the keys that may be null, which says as much as their absence. Any
// other key that is null is refused if it is read, as transformers 5 refuses it: to
// take a default for it would be a guess.
var nullable = map[string]bool{
	"model_type": true, "architectures": true,
	"sliding_window_pattern": true, "use_bidirectional_attention": true,
	"attn_logit_softcapping": true, "final_logit_softcapping": true,
	"full_attention_interval": true, "rope_local_base_freq": true, "partial_rotary_factor": true,
	"attention_factor": true, "beta_fast": true, "beta_slow": true, "truncate": true,
	"quant_method": true, "format": true, // of compressed-tensors
}

// absent reports whether a default takes the place of a key.
func (k *keys) absent(name string) bool {
	return !k.present(name) || nullable[name] && !k.set(name)
}

// whole returns a whole number in [least, most].
func (k *keys) whole(name string, least, most int) int {
	n, err := strconv.Atoi(string(bytes.TrimSpace(k.raw[name])))
	if err != nil || n < least || n > most {
		k.failf(name, "a whole number in [%d, %d]", least, most)
		return max(least, 1)
	}
	return n
}

// size returns a whole number in [1, most].
func (k *keys) size(name string, most int) int { return k.whole(name, 1, most) }

// sizeOr is size, or def if the key is absent.
func (k *keys) sizeOr(name string, def, most int) int {
	if k.absent(name) {
		return def
	}
	return k.size(name, most)
}

// window returns sliding_window, 0 if it is absent or null.
func (k *keys) window() int {
	if !k.set("sliding_window") {
		return 0
	}
	return k.size("sliding_window", maxPositions)
}

// positive returns a finite number above 0.
func (k *keys) positive(name string) float64 {
	v, err := strconv.ParseFloat(string(bytes.TrimSpace(k.raw[name])), 64)
	if err != nil || !(v > 0) || math.IsInf(v, 0) {
		k.failf(name, "a finite number above 0")
		return 1
	}
	return v
}

// positiveOr is positive, or def if the key is absent.
func (k *keys) positiveOr(name string, def float64) float64 {
	if k.absent(name) {
		return def
	}
	return k.positive(name)
}

// positives returns a list of n finite numbers above 0.
func (k *keys) positives(name string, n int) []float64 {
	var v []float64
	bad := json.Unmarshal(k.raw[name], &v) != nil || len(v) != n
	if bad || slices.ContainsFunc(v, func(x float64) bool { return !(x > 0) }) {
		k.failf(name, "%d numbers above 0", n)
		return make([]float64, n)
	}
	return v
}

// boolOr returns a boolean, or def if the key is absent.
func (k *keys) boolOr(name string, def bool) bool {
	if k.absent(name) {
		return def
	}
	var v bool
	if !k.set(name) || json.Unmarshal(k.raw[name], &v) != nil {
		k.failf(name, "true or false")
	}
	return v
}

// textOr returns a string, or def if the key is absent.
func (k *keys) textOr(name, def string) string {
	if k.absent(name) {
		return def
	}
	var v string
	if !k.set(name) || json.Unmarshal(k.raw[name], &v) != nil {
		k.failf(name, "a string")
	}
	return v
}

// texts returns a list of strings, nil if the key is absent or null.
func (k *keys) texts(name string) []string {
	if !k.set(name) {
		return nil
	}
	var v []string
	if json.Unmarshal(k.raw[name], &v) != nil {
		k.failf(name, "a list of strings")
	}
	return v
}

// wholes returns a list of whole numbers, nil if the key is absent or null.
func (k *keys) wholes(name string) []int {
	if !k.set(name) {
		return nil
	}
	var v []int
	if json.Unmarshal(k.raw[name], &v) != nil {
		k.failf(name, "a list of whole numbers")
	}
	return v
}

// object returns the object under a key, nil if the key is absent or null.
func (k *keys) object(name string) *keys {
	if !k.set(name) {
		return nil
	}
	in := &keys{path: k.path + name + ".", err: k.err}
	if json.Unmarshal(k.raw[name], &in.raw) != nil {
		k.failf(name, "an object")
		return nil
	}
	return in
}

// refuseEncoded fails on keys by which weights are not what they seem, with the
// tool that opens them.
func (k *keys) refuseEncoded() {
	if q := k.object("quantization_config"); q != nil {
		q.refuseQuantized()
	}
	if q := k.object("quantization"); q != nil && q.set("bits") { // MLX's own name for it
		q.refuseQuantized()
	}
	if c := k.object("compression_config"); c != nil {
		c.refuseCompressed()
	}
	if k.set("transformers_weights") {
		k.failf("transformers_weights", "none: name the file model.safetensors and remove the key")
	}
}

// refuseQuantized fails on all but a format that leaves weights as they are.
func (q *keys) refuseQuantized() {
	method := q.textOr("quant_method", "")
	switch {
	case method == "compressed-tensors":
		q.refuseCompressed()
	case method == "" && q.set("bits") && q.set("group_size"):
		q.failf("bits", "none: weights quantized by MLX; prune the model that they were made from")
	case method == "":
		q.failf("quant_method", "none: quantized weights; prune the model that they were made from")
	default:
		q.failf("quant_method", "none: weights quantized by %s; prune the model that they were made from", excerpt(method))
	}
}

// refuseCompressed fails on a configuration of compressed-tensors but where it
// only records that weights were pruned, and stores them dense.
func (q *keys) refuseCompressed() {
	const decompress = "dense: load it with transformers and compressed-tensors, and save it decompressed"
	if format := q.textOr("format", "dense"); format != "dense" {
		q.failf("format", decompress)
	}
	for _, name := range []string{"quantization_config", "config_groups"} {
		if in, any := q.raw[name]; any && !slices.Contains([]string{"null", "{}"}, string(in)) {
			q.failf(name, "none: quantized weights; prune the model that they were made from")
		}
	}
	if s := q.object("sparsity_config"); s != nil {
		if format := s.textOr("format", "dense"); format != "dense" {
			s.failf("format", decompress)
		}
	}
}

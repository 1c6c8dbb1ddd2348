package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
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
	if err := json.Unmarshal(data, &k.raw); err != nil {
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
	const most = 60
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		b.Reset()
		b.Write(raw)
	}
	if b.Len() > most {
		return string(bytes.ToValidUTF8(b.Bytes()[:most], nil)) + "…"
	}
	return b.String()
}

// present reports whether the key stands there, be it with null.
func (k *keys) present(name string) bool { _, ok := k.raw[name]; return ok }

// set reports whether the key stands there with a value other than null.
func (k *keys) set(name string) bool {
	raw, ok := k.raw[name]
	return ok && !bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
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

// sizeOr is size, or def if the key is absent or null.
func (k *keys) sizeOr(name string, def, most int) int {
	if !k.set(name) {
		return def
	}
	return k.size(name, most)
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

// positiveOr is positive, or def if the key is absent or null.
func (k *keys) positiveOr(name string, def float64) float64 {
	if !k.set(name) {
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

// boolOr returns a boolean, or def if the key is absent or null.
func (k *keys) boolOr(name string, def bool) bool {
	if !k.set(name) {
		return def
	}
	var v bool
	if json.Unmarshal(k.raw[name], &v) != nil {
		k.failf(name, "true or false")
	}
	return v
}

// textOr returns a string, or def if the key is absent or null.
func (k *keys) textOr(name, def string) string {
	if !k.set(name) {
		return def
	}
	var v string
	if json.Unmarshal(k.raw[name], &v) != nil {
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

// switches are keys that change what a model computes unless they hold the
// value of neutral. A class names those that it reads; a checkpoint whose
// config turns on another is refused, since ignoring it would prune and
// measure a different model.
var switches = []struct {
	name    string
	neutral func(k *keys, name string) bool
}{
	{"quantization_config", unset},
	{"compression_config", unset},
	{"attention_bias", off},
	{"qkv_bias", off},
	{"mlp_bias", off},
	{"lm_head_bias", off},
	{"use_qk_norm", off},
	{"sliding_window", unset},
	{"use_sliding_window", off},
	{"layer_types", func(k *keys, name string) bool {
		return !slices.ContainsFunc(k.texts(name), func(s string) bool { return s != fullAttention })
	}},
	{"attn_logit_softcapping", unset},
	{"final_logit_softcapping", unset},
	{"logit_scale", one},
	{"use_bidirectional_attention", off},
	{"attn_output_gate", off},
	{"shared_expert_intermediate_size", unset},
	{"output_gate_type", func(k *keys, name string) bool {
		return slices.Contains([]string{"swish", "silu"}, k.textOr(name, "silu")) // two names of one function
	}},
}

func unset(k *keys, name string) bool { return !k.set(name) }
func off(k *keys, name string) bool   { return !k.boolOr(name, false) }
func one(k *keys, name string) bool   { return k.positiveOr(name, 1) == 1 }

// refuseSwitches fails on the first switch that is on and not in reads.
func (k *keys) refuseSwitches(class string, reads []string) {
	for _, s := range switches {
		if !slices.Contains(reads, s.name) && !s.neutral(k, s.name) {
			k.failf(s.name, "none: %s here does not implement it", class)
		}
	}
}

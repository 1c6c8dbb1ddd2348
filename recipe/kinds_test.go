package recipe

import (
	"strings"
	"testing"
)

// A kind's parameters stand in place of those of all; what it does not say is theirs,
// and what says the same is taken out.
func TestKinds(t *testing.T) {
	r, err := Parse([]byte("version: 1\nmethod: crepe\nbeta: 0.5\nkinds:\n  v_proj: {beta: 0, power: 0.75}\n  o_proj: {beta: 0.5}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	v, q := got.ParamsOf("model.layers.3.self_attn.v_proj"), got.ParamsOf("model.layers.3.self_attn.q_proj")
	if v.Number("beta") != 0 || v.Number("power") != 0.75 || v.Number("alpha") != q.Number("alpha") || q.Number("beta") != 0.5 {
		t.Errorf("v_proj has %v, q_proj %v", v, q)
	}
	if all := r.WithDefaults(); len(all.Kinds) != 1 || len(all.Kinds["v_proj"]) != 2 {
		t.Errorf("kinds %v, want v_proj's two", all.Kinds)
	}
	yaml, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(yaml)
	if err != nil || !again.Equal(r) {
		t.Errorf("%s: %v", yaml, err)
	}
	other := r.WithKind("v_proj", "power", 0.25)
	if r.Kinds["v_proj"]["power"] != 0.75 || other.Kinds["v_proj"]["power"] != 0.25 || other.Equal(r) {
		t.Errorf("%v, changed to %v", r.Kinds, other.Kinds)
	}
}

func TestKindsRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"method: wanda\nkinds: {v_proj: {beta: 0}}":                     "kinds: v_proj: beta: method wanda does not read it, nor anything else",
		"method: crepe\nkinds: {v_proj: {cycles: 0}}":                   "kinds: v_proj: cycles: method crepe does not read it; it reads alpha",
		"method: crepe\nkinds: {v_proj: {beta: -1}}":                    "kinds: v_proj: beta: -1",
		"method: crepe\nkinds: {v_proj: {kernel: 4.5}}":                 "kinds: v_proj: kernel: 4.5",
		"method: crepe\nkinds: {self_attn.v_proj: {beta: 0}}":           `kinds: "self_attn.v_proj", want the last part`,
		"method: crepe\nkinds: {v_proj: 3}":                             "want fields of its own",
		"method: crepe\nkinds: {v_proj: {alpha: 0, beta: 0, gamma: 0}}": "kinds: v_proj: alpha, beta, gamma and delta are all 0",
		"method: sparsegpt\nkinds: {v_proj: {beta: 0}}":                 "kinds: v_proj: beta: method sparsegpt does not read it",
	} {
		if _, err := Parse([]byte("version: 1\n" + text + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

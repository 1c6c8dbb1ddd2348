package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// configCase is what transformers makes of a fixture whose config has one key
// changed; tools/golden_config.py made testdata/config.json.
type configCase struct {
	Fixture    string
	Change     map[string]json.RawMessage
	Class      string
	NLL        float64
	Missing    int    // tensors that transformers made up
	Unexpected int    // tensors that it left unread
	Refused    string // why it computed nothing
}

// notImplemented are parts of configs that transformers computes with and crepe
// refuses; all others must come to transformers' number.
var notImplemented = []struct{ fixture, key, value, why string }{
	{"", "hidden_act", "gelu", "no published model of these classes has it"},
	{"", "hidden_activation", "silu", "no published model of these classes has it"},
	{"", "is_causal", "false", "nothing to continue"},
	{"", "is_causal", "null", "transformers takes it for false"},
	{"gemma3-text", "use_bidirectional_attention", "true", "nothing to continue"},
	{"gemma3-text", "rope_scaling", `"type"`, "transformers reads it as no scaling, which is not what it says"},
	{"gemma3-text", "rope_parameters", `"rope_type"`, "transformers reads it as nothing, which is not what it says"},
}

// TestConfigs: a key is refused only if it would change the computation, and what
// is not refused is computed as transformers computes it.
func TestConfigs(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	text, err := os.ReadFile("../../testdata/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []configCase
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) < 500 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	computed, folders := 0, map[string]string{}
	for _, c := range cases {
		if folders[c.Fixture] == "" {
			folders[c.Fixture] = copyWeights(t, c.Fixture)
		}
		name := c.Fixture + " " + c.describe()
		rep, refused := evalChanged(t, c, folders[c.Fixture])
		switch {
		case c.Refused != "" && refused == "" && c.null():
			t.Errorf("%s: computed, but transformers says %s", name, c.Refused)
		case c.Refused != "": // no number to compare with
		case refused != "" && (c.Missing > 0 || c.Unexpected > 0 || c.unimplemented()):
		case refused != "":
			t.Errorf("%s: %s\n\twant %v nats a token", name, refused, c.NLL)
		case c.Missing > 0:
			t.Errorf("%s: %v nats a token, but %d tensors are missing", name, rep.NLL, c.Missing)
		case !(math.Abs(float64(rep.NLL)-c.NLL) <= 4e-4): // as in TestFixtures
			t.Errorf("%s: %v nats a token, want %v", name, rep.NLL, c.NLL)
		default:
			computed++
		}
	}
	if computed < 600 {
		t.Errorf("%d cases computed, want 600 at least", computed)
	}
}

func (c configCase) describe() string {
	text, _ := json.Marshal(c.Change)
	return string(text)
}

// null reports whether a key of the change is null: crepe takes no default for a null
// that transformers refuses.
func (c configCase) null() bool {
	for _, value := range c.Change {
		if string(value) == `"null"` {
			return true
		}
	}
	return false
}

func (c configCase) unimplemented() bool {
	for _, n := range notImplemented {
		if (n.fixture == "" || n.fixture == c.Fixture) && strings.Contains(string(c.Change[n.key]), n.value) {
			return true
		}
	}
	return false
}

// copyWeights returns a new folder with the weights of a fixture.
func copyWeights(t *testing.T, fixture string) string {
	t.Helper()
	dir := t.TempDir()
	weights, err := filepath.Glob(filepath.Join(fixturesDir, fixture, "model*"))
	if err != nil || len(weights) == 0 {
		t.Fatalf("%s: %v, %v", fixture, weights, err)
	}
	for _, w := range weights {
		text, err := os.ReadFile(w)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(w)), text, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// evalChanged evaluates the fixture of c with c's config, in the folder dir with
// its weights; refused is what crepe says where it does not.
func evalChanged(t *testing.T, c configCase, dir string) (rep evalReport, refused string) {
	t.Helper()
	from := filepath.Join(fixturesDir, c.Fixture)
	text, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), c.changed(t, text), 0o666); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"eval", dir, "--data", filepath.Join(from, "golden.safetensors"), "--compute", "f32", "--json"}, &stdout, &stderr); code != exitOK {
		return rep, stderr.String()
	}
	if err := json.Unmarshal(stdout.Bytes(), &rep); err != nil {
		t.Fatal(err)
	}
	return rep, ""
}

// changed makes c's change of a config as tools/golden_config.py does.
func (c configCase) changed(t *testing.T, text []byte) []byte {
	t.Helper()
	var top map[string]any
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	in := top
	if nested, ok := top["text_config"].(map[string]any); ok {
		in = nested
	}
	for _, key := range slices.Sorted(maps.Keys(c.Change)) {
		var value any
		if err := json.Unmarshal(c.Change[key], &value); err != nil {
			t.Fatal(err)
		}
		at := in
		if key == "architectures" || key == "model_type" {
			at = top
		}
		if all, ok := value.(string); ok && key == "layer_types" {
			value = slices.Repeat([]string{all}, int(in["num_hidden_layers"].(float64)))
		}
		switch value {
		case nil:
			delete(at, key)
		case "null":
			at[key] = nil
		default:
			at[key] = value
		}
	}
	out, err := json.Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

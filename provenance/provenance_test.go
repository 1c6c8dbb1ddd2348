package provenance

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const hashA, hashB = "12ab34cd56ef00000000000000000000000000000000000000000000000000aa", "98ab34cd56ef00000000000000000000000000000000000000000000000000bb"

func record() Record {
	return Record{
		{"program", Program{"0.1.0", "3f2a91c", hashA}.String()},
		{"engine", "cpu/avx512+bf16"},
		{"input model.safetensors", hashA},
		{"recipe alpha", "1"},
		{"recipe skip", ""},
	}
}

func with(r Record, name, value string) Record {
	for i := range r {
		if r[i].Name == name {
			r[i].Value = value
		}
	}
	return r
}

func TestDiffSaysWhatDiffers(t *testing.T) {
	for name, c := range map[string]struct {
		then, now Record
		want      []string
	}{
		"equal":   {record(), record(), nil},
		"program": {record(), with(record(), "program", Program{"0.1.0", "", hashB}.String()), []string{"program: 0.1.0 (3f2a91c, sha256 12ab34cd56ef…) made it, this is 0.1.0 (sha256 98ab34cd56ef…)"}},
		"engine":  {record(), with(record(), "engine", "cpu/avx2"), []string{"engine: cpu/avx512+bf16, this is cpu/avx2"}},
		"two": {record(), with(with(record(), "recipe alpha", "0.5"), "input model.safetensors", hashB), []string{
			"input model.safetensors: 12ab34cd56ef…, this is 98ab34cd56ef…", "recipe alpha: 1, this is 0.5"}},
		"one was not set":  {record(), with(record(), "recipe skip", "mlp"), []string{"recipe skip: none, this is mlp"}},
		"one is missing":   {record(), record()[:3], []string{"recipe alpha: 1, this has none", "recipe skip: none, this has none"}},
		"one is new":       {record()[:3], record()[:4], []string{"recipe alpha: none, this is 1"}},
		"program not told": {record()[1:], record(), []string{"program: an older crepe, which did not note itself, made it; this is 0.1.0 (3f2a91c, sha256 12ab34cd56ef…)"}},
		"order":            {Record{record()[1], record()[0]}, record()[:2], []string{"the same values are noted in another order"}},
	} {
		if got := Diff(c.then, c.now); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if same := c.then.Key() == c.now.Key(); same != (c.want == nil) {
			t.Errorf("%s: keys are equal: %t", name, same)
		}
	}
}

// Who computes is no part of what is asked for; a record that does not say who
// cannot say what either.
func TestAsks(t *testing.T) {
	r := record()
	for name, c := range map[string]struct {
		other Record
		want  bool
	}{
		"itself":          {record(), true},
		"another program": {with(record(), "program", "x"), true},
		"another engine":  {with(record(), "engine", "x"), true},
		"another recipe":  {with(record(), "recipe alpha", "2"), false},
		"an older crepe":  {Record{{"crepe", "0.1.0"}}, true},
	} {
		if r.Asks(c.other) != c.want || c.other.Asks(r) != c.want {
			t.Errorf("%s: want %t both ways", name, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	program, recipe := with(record(), "program", "x"), with(record(), "recipe alpha", "2")
	both := with(with(record(), "program", "x"), "engine", "x")
	if got := Nearest([]Record{recipe, both, program, both}, record()); !reflect.DeepEqual(got, program) {
		t.Errorf("%v, want %v", got, program)
	}
	if got := Nearest([]Record{recipe}, record()); got != nil {
		t.Errorf("%v asks for something else", got)
	}
}

func TestRecordKeepsItsJSON(t *testing.T) {
	text, err := json.Marshal(record())
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := json.Unmarshal(text, &back); err != nil || back.Key() != record().Key() {
		t.Errorf("%s: key %s (%v), want %s", text, back.Key(), err, record().Key())
	}
}

func TestValues(t *testing.T) {
	half, big := 0.5, int64(1)<<62+1
	got, err := Values("recipe", struct {
		Method string   `json:"method"`
		Alpha  *float64 `json:"alpha,omitempty"`
		Beta   *float64 `json:"beta,omitempty"`
		Eval   struct {
			Seed int64 `json:"seed"`
		} `json:"eval"`
	}{Method: "crepe", Alpha: &half, Eval: struct {
		Seed int64 `json:"seed"`
	}{big}})
	want := Record{{"recipe alpha", "0.5"}, {"recipe eval seed", "4611686018427387905"}, {"recipe method", "crepe"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
	if got := got.Without("recipe eval", "recipe alph"); !reflect.DeepEqual(got, Record{want[0], want[2]}) {
		t.Errorf("without eval: %v", got)
	}
	if _, err := Values("recipe", make(chan int)); err == nil || !strings.Contains(err.Error(), "recipe") {
		t.Errorf("of what has no JSON: error %v", err)
	}
}

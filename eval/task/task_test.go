package task

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tokenizer"
)

func TestPython(t *testing.T) {
	// What Python 3.11 makes of them.
	for _, c := range [][2]string{
		{"", ""}, {"the MAN", "The man"}, {"[Title] X", "[title] x"}, {"ßA", "Ssa"}, {"ﬁN", "Fin"}, {"İİ", "İi̇"}, {"ǆǄ", "ǅǆ"},
		{"ΑΣ", "Ας"}, {"ΑΣ.", "Ας."}, {"ΑΣ'Β", "Ασ'β"}, {"Σ", "Σ"}, {" Σ", " σ"}, {"ΑΣΣ", "Ασς"}, {"ŉA", "ʼNa"}, {"日本", "日本"},
	} {
		if got := capitalize(c[0]); got != c[1] {
			t.Errorf("capitalize(%q) = %q, want %q", c[0], got, c[1])
		}
	}
	for _, c := range [][2]string{
		{"\x1c\x1f\u0085\u00a0\u3000a b\u2028\v", "a b"}, {"\u200ba\ufeff", "\u200ba\ufeff"}, {" \t\n", ""},
	} {
		if got := strip(c[0]); got != c[1] {
			t.Errorf("strip(%q) = %q, want %q", c[0], got, c[1])
		}
	}
	for _, c := range [][2]string{
		{"[step] Go", " Go"}, {"[step]", ""}, {"a [title] b", "a. b"}, {" [title] b", " b"}, {"a   b", "a  b"},
		{"[a [b] c]", " c]"}, {"[a\nb]", "[a\nb]"}, {"a [x] b", "a b"},
	} {
		if got := withoutBrackets(c[0]); got != c[1] {
			t.Errorf("withoutBrackets(%q) = %q, want %q", c[0], got, c[1])
		}
	}
}

// Accuracy by hand: three documents, of which the likeliest choice is right
// once and the likeliest by length twice; √(p(1−p)/2).
func TestSummarize(t *testing.T) {
	d := Document{Gold: 1, Requests: []Request{{Length: 1}, {Length: 4}, {Length: 0}}}
	var answers []Answer
	for _, l := range [][]float64{{-1, -2, -3}, {-2, -1, -3}, {-1, -8, -0.5}} {
		answers = append(answers, d.answer("x", len(answers), Likelihoods{Log: l}))
	}
	for i, want := range [][2]int{{0, 1}, {1, 1}, {2, 0}} {
		if got := [2]int{answers[i].Pred, answers[i].PredNorm}; got != want {
			t.Errorf("document %d: predictions %v, want %v", i, got, want)
		}
	}
	r := Summarize("x", answers)
	if r.Acc != 1.0/3 || r.AccNorm != 2.0/3 || !(math.Abs(*r.AccStderr-1.0/3) < 1e-15) || *r.AccStderr != *r.AccNormStderr {
		t.Errorf("got %+v, want 1/3 and 2/3 with errors of 1/3", r)
	}
	if one := Summarize("x", answers[:1]); one.AccStderr != nil {
		t.Errorf("one document has a standard error of %v, want none", *one.AccStderr)
	}
	if largest([]float64{-3, -1, -1}) != 1 || largest([]float64{math.Inf(-1), math.Inf(-1)}) != 0 {
		t.Error("largest: want the first of equals")
	}
}

// Four documents of which one is lost and none won: −1/4, and with squared
// deviations of 9/16 + 3/16 an error of √(3/4 / 3 / 4).
func TestCompare(t *testing.T) {
	dense, model := make([]Answer, 4), make([]Answer, 4)
	model[2].Pred = 1
	d := Compare(model, dense)
	if d.Acc != -0.25 || *d.AccStderr != 0.25 || d.AccNorm != 0 || *d.AccNormStderr != 0 {
		t.Errorf("got %v ± %v and %v ± %v, want -0.25 ± 0.25 and 0 ± 0", d.Acc, *d.AccStderr, d.AccNorm, *d.AccNormStderr)
	}
}

// What a document gets does not depend on what shares its group.
func TestGroupsDoNotMatter(t *testing.T) {
	m, inv := openModel(t)
	e, err := NewEncoder(m, inv.Config(), tokenizer.In(modelDir), modelDir, Auto)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := hellaswag.load(filepath.Join("testdata/data", hellaswag.Name), 6)
	if err != nil {
		t.Fatal(err)
	}
	all, err := Score(context.Background(), m, e, docs, Options{})
	if err != nil {
		t.Fatal(err)
	}
	few, err := Score(context.Background(), m, e, docs, Options{Bytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 6 || !reflect.DeepEqual(all, few) {
		t.Errorf("one document at a time: %v, want %v", few, all)
	}
}

func TestSequencesShareTheirBeginning(t *testing.T) {
	m, inv := openModel(t)
	e, err := NewEncoder(m, inv.Config(), tokenizer.In(modelDir), modelDir, Off)
	if err != nil {
		t.Fatal(err)
	}
	d := Document{Requests: choices("It is", "a dog that barked", "a dog that slept", "a dog that barked")}
	s, err := e.sequences(m, &d)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.rests) != 2 || len(s.prefix) < 4 || s.spans[0].rest != s.spans[2].rest {
		t.Errorf("got a beginning of %d tokens and %d rests, want at least 4 and 2", len(s.prefix), len(s.rests))
	}
	if n := len(s.prefix) + len(s.rests[0]); s.spans[0].first+len(s.spans[0].targets) != n {
		t.Errorf("predictions end at %d, want %d", s.spans[0].first+len(s.spans[0].targets), n)
	}
}

func TestRequestsThatCannotBeScored(t *testing.T) {
	m, inv := openModel(t)
	e, err := NewEncoder(m, inv.Config(), tokenizer.In(modelDir), modelDir, Off)
	if err != nil {
		t.Fatal(err)
	}
	for want, r := range map[string]Request{
		"has no tokens, want at least one": {Context: "\n \n", Continuation: " a"},
		"want at most the model's 512":     {Context: "a", Continuation: strings.Repeat(" and so on", 300)},
		"has no tokens after its context":  {Context: "", Continuation: ""},
	} {
		docs := []Document{{Requests: choices("It is", "so")}, {Requests: []Request{r}}}
		_, err := Run(context.Background(), m, e, []Set{{rte, docs[:1]}, {boolq, docs[1:]}}, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "task boolq: document 0: ") {
			t.Errorf("got %v, want task boolq, document 0 and %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Score(ctx, m, e, []Document{{Requests: choices("It is", "so")}}, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want it to say so", err)
	}
}

func TestRowsThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct {
		task      *Task
		row, want string
	}{
		{rte, `{"sentence1":"a","label":0}`, "no column sentence2"},
		{rte, `{"sentence1":"a","sentence2":3,"label":0}`, "column sentence2: 3, want a string"},
		{rte, `{"sentence1":null,"sentence2":"b","label":0}`, "column sentence1: null, want a string"},
		{rte, `{"sentence1":"a","sentence2":"b","label":"0"}`, `column label: "0", want an integer`},
		{rte, `{"sentence1":"a","sentence2":"b","label":0.5}`, "column label: 0.5, want an integer"},
		{rte, `{"sentence1":"a","sentence2":"b","label":-1}`, "the right choice is number -1 (from 0), want one of 2"},
		{mnli, `{"premise":"a","hypothesis":"b","label":3}`, "number 3 (from 0), want one of 3"},
		{boolq, `[]`, "a JSON array, want one object on each line"},
		{boolq, `{"passage": "\ud83d"}`, "column passage: half a surrogate pair: \\ud83d at offset 1"},
		{boolq, `null`, "null, want an object"},
		{boolq, `{`, "unexpected end of JSON input"},
		{boolq, "{\"passage\":\"\xff\"}", "not UTF-8"},
		{hellaswag, `{"activity_label":"a","ctx_a":"b","ctx_b":"c","endings":[],"label":"0"}`, "no choices, want at least one"},
		{hellaswag, `{"activity_label":"a","ctx_a":"b","ctx_b":"c","endings":["x",null],"label":"0"}`, "column endings: element 1 is null"},
		{hellaswag, `{"activity_label":"a","ctx_a":"b","ctx_b":"c","endings":["x"],"label":""}`, `column label: "", want an integer`},
		{arcEasy, `{"question":"q","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":"C"}`, `column answerKey: "C", want one of the labels ["A" "B"]`},
		{arcEasy, `{"question":"q","choices":{"text":["a","b"],"label":["A"]},"answerKey":"A"}`, "column choices: 2 texts and 1 labels"},
		{arcEasy, `{"question":"q","choices":{"text":["a"]},"answerKey":"A"}`, "no column choices.label"},
		{arcEasy, `{"question":"q","choices":["a"],"answerKey":"A"}`, `column choices: ["a"], want an object`},
		{winogrande, `{"sentence":"no blank","option1":"a","option2":"b","answer":"1"}`, `column sentence: no "_" in it`},
		{winogrande, `{"sentence":"_","option1":"a","option2":"b","answer":""}`, `column answer: "", want "1" or "2"`},
	} {
		good := map[*Task]string{boolq: `{"passage":"a","question":"b","label":1}`}[c.task]
		dir := folder(t, c.task, map[string]string{c.task.Split + ".jsonl": good + "\n" + c.row + "\n"})
		_, err := c.task.load(filepath.Join(dir, c.task.Name), 0)
		want := filepath.Join(dir, c.task.Name, c.task.Split+".jsonl") + ": row 2: "
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s… %s", c.row, err, want, c.want)
		}
	}
}

// folder makes the data folder of one task.
func folder(t *testing.T, task *Task, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, task.Name), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, task.Name, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFilesOfASplit(t *testing.T) {
	row := func(passage string) string { return `{"passage":"` + passage + `","question":"b","label":1}` + "\n" }
	dir := folder(t, boolq, map[string]string{
		"validation-00001-of-00002.jsonl": row("second"), "validation-00000-of-00002.jsonl": row("first") + "\n",
		"validation_matched.jsonl": "no row", "train.jsonl": "no row",
	})
	for limit, want := range []string{"first second", "first"} {
		docs, err := boolq.load(filepath.Join(dir, boolq.Name), limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range docs {
			got = append(got, strings.Fields(d.Requests[0].Context)[0])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("limit %d: documents %q, want %s", limit, got, want)
		}
	}
	for want, files := range map[string]map[string]string{
		"no file of split validation, want validation-00000-of-00001.parquet or validation.jsonl": {"train.jsonl": row("a")},
		"validation-00000-of-00001.parquet: not a Parquet file":                                   {"validation-00000-of-00001.parquet": "PAR1"},
		"validation-00000-of-00001.parquet and validation.jsonl are both split validation, want one of them": {
			"validation.jsonl": row("a"), "validation-00000-of-00001.parquet": "PAR1"},
		"no file validation-00001-of-00002":                                       {"validation-00000-of-00002.jsonl": row("a"), "validation-00002-of-00002.jsonl": row("a")},
		"1 files of split validation (validation-00000-of-00002.jsonl …), want 2": {"validation-00000-of-00002.jsonl": row("a")},
		"no documents": {"validation.jsonl": "\n"},
	} {
		if _, err := boolq.load(filepath.Join(folder(t, boolq, files), boolq.Name), 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", files, err, want)
		}
	}
	if _, err := rte.load(filepath.Join(dir, rte.Name), 0); err == nil || !strings.Contains(err.Error(), "task rte: ") {
		t.Errorf("no folder: got %v, want an error of task rte", err)
	}
}

// FuzzRow reads any line as any task's row: an error or a document that can be scored.
func FuzzRow(f *testing.F) {
	for _, task := range tasks {
		data, err := os.ReadFile(filepath.Join("testdata/data", task.Name, task.Split+".jsonl"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(strings.SplitN(string(data), "\n", 2)[0]))
	}
	f.Add([]byte(`{"choices":{"text":[null],"label":null}}`))
	f.Add([]byte(`{"passage":"\ud83d","question":NaN}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, task := range tasks {
			var d Document
			var err error
			golden.Ceiling(t, uint64(64<<10+200*len(line)), func() { d, err = task.parse(line) })
			if err == nil && (d.Gold < 0 || d.Gold >= len(d.Requests)) {
				t.Errorf("%s: right choice %d of %d", task.Name, d.Gold, len(d.Requests))
			}
		}
	})
}

// FuzzNames reads any text as tokenizer_config.json and special_tokens_map.json.
func FuzzNames(f *testing.F) {
	f.Add([]byte(`{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "added_tokens_decoder": {"0": {}}}`))
	f.Add([]byte(`{"bos_token": null, "eos_token": [], "model_max_length": 1e30}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		golden.Ceiling(t, uint64(64<<10+100*len(data)), func() {
			_, _ = readNames(func(string, int64) ([]byte, error) { return data, nil }, "")
		})
	})
}

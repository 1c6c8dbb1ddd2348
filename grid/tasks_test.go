package grid

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/model"
)

// Another tokenizer makes other tokens of a task's documents, which are other
// results, though the weights and the windows of tokens are the same.
func TestTaskKeysFollowTheTokenizer(t *testing.T) {
	tasks, err := task.Parse("rte")
	if err != nil {
		t.Fatal(err)
	}
	set := task.Set{Task: tasks[0], Documents: []task.Document{{Requests: []task.Request{
		{Context: "The Cat sat.", Continuation: " True"}, {Context: "The Cat sat.", Continuation: " False"},
	}}}}
	keys := func(m Model) string {
		g := &runner{Model: m, opt: Options{Tasks: []task.Set{set}}}
		if err := g.keyTasks(); err != nil {
			t.Fatal(err)
		}
		return g.tasks[0]
	}
	dir, err := demo.ModelDir() // which has a tokenizer
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, dir)
	was := keys(m)
	if again := keys(m); again != was {
		t.Errorf("the same tokenizer: %s, want %s", again, was)
	}
	if other := keys(withTokenizer(t, m, func(tokenizer map[string]any) { tokenizer["normalizer"] = map[string]any{"type": "Lowercase"} })); other == was {
		t.Error("a tokenizer in lower case: the same key")
	}
}

// withTokenizer returns m in a folder of its own, in which edit has changed
// tokenizer.json.
func withTokenizer(t *testing.T, m Model, edit func(map[string]any)) Model {
	t.Helper()
	dir := t.TempDir()
	files, err := os.ReadDir(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(m.Dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if f.Name() == "tokenizer.json" {
			var tokenizer map[string]any
			if err := json.Unmarshal(data, &tokenizer); err != nil {
				t.Fatal(err)
			}
			edit(tokenizer)
			if data, err = json.Marshal(tokenizer); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m.Dir, m.Inv = dir, inv
	if m.M, err = model.Open(inv, model.Options{Engine: cpu.New(engine.F32)}); err != nil {
		t.Fatal(err)
	}
	return m
}

package task

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tokenizer"
)

const modelDir = "../../demo/data/model"

func openModel(t testing.TB) (*model.Model, *checkpoint.Inventory) {
	t.Helper()
	inv, err := checkpoint.Open(modelDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	return m, inv
}

// TestHarness holds every document's numbers against lm-evaluation-harness on
// the same model, tokenizer and documents; tools/golden_tasks.py made
// both. Its names are TOKENIZER-BOS.
func TestHarness(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.jsonl.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/golden: no goldens (%v)", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl.gz")
		t.Run(name, func(t *testing.T) {
			from, mode, _ := strings.Cut(name, "-")
			dir := filepath.Join("testdata/tokenizers", from)
			if from == "demo" {
				dir = modelDir
			}
			bos, err := ParseBOS(mode)
			if err != nil {
				t.Fatal(err)
			}
			m, inv := openModel(t)
			e, err := NewEncoder(m, inv.Config(), tokenizer.In(dir), dir, bos)
			if err != nil {
				t.Fatal(err)
			}
			want := readGolden(t, file)
			for _, task := range tasks {
				if want.answers[task.Name] != nil {
					compare(t, m, e, task, want)
				}
			}
		})
	}
}

// harnessResults are the harness's, by task.
type harnessResults struct {
	answers map[string][]Answer
	metrics map[string]map[string]float64
}

func readGolden(t *testing.T, path string) harnessResults {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	h := harnessResults{answers: map[string][]Answer{}, metrics: map[string]map[string]float64{}}
	for lines := bufio.NewScanner(z); lines.Scan(); {
		line := lines.Bytes()
		var a Answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		if a.Log != nil {
			h.answers[a.Task] = append(h.answers[a.Task], a)
			continue
		}
		numbers := map[string]float64{}
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		for k, v := range m {
			if x, ok := v.(float64); ok {
				numbers[k] = x
			}
		}
		h.metrics[a.Task] = numbers
	}
	return h
}

func compare(t *testing.T, m *model.Model, e *Encoder, task *Task, want harnessResults) {
	docs, err := task.load(filepath.Join("testdata/data", task.Name), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) < 60 || len(docs) != len(want.answers[task.Name]) {
		t.Fatalf("%s: %d documents, the harness had %d", task.Name, len(docs), len(want.answers[task.Name]))
	}
	ls, err := Score(context.Background(), m, e, docs, Options{})
	if err != nil {
		t.Fatalf("%s: %v", task.Name, err)
	}
	worst := 0.0
	answers := make([]Answer, len(docs))
	for i, d := range docs {
		got, w := d.answer(task.Name, i, ls[i]), want.answers[task.Name][i]
		answers[i] = got
		for c := range w.Log {
			// The sums of some hundred terms of float32, on both sides.
			diff := math.Abs(got.Log[c] - w.Log[c])
			if !(diff <= 1e-3) {
				t.Errorf("%s document %d choice %d: log-likelihood %v, want %v", task.Name, i, c, got.Log[c], w.Log[c])
			}
			worst = max(worst, diff)
		}
		got.Log, w.Log = nil, nil
		if !reflect.DeepEqual(got, w) {
			t.Errorf("%s document %d: got %+v, want %+v", task.Name, i, got, w)
		}
	}
	r := Summarize(task.Name, answers)
	for metric, got := range map[string]float64{
		"acc": r.Acc, "acc_stderr": *r.AccStderr, "acc_norm": r.AccNorm, "acc_norm_stderr": *r.AccNormStderr,
	} {
		if w, ok := want.metrics[task.Name][metric]; ok && !(math.Abs(got-w) <= 1e-12) {
			t.Errorf("%s: %s %v, want %v", task.Name, metric, got, w)
		}
	}
	t.Logf("%s: %d documents, worst difference %.1e", task.Name, len(docs), worst)
}

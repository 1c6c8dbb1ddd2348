package windows

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tokenizer"
)

// loader is for the demo model; it collects what it is warned of.
func loader(t *testing.T) (*Loader, *[]string) {
	t.Helper()
	dir, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	var warned []string
	return &Loader{ModelDir: dir, ReadFile: tokenizer.In(dir), Vocab: 4096, MaxSeqLen: 512, Warn: func(f string, a ...any) {
		warned = append(warned, fmt.Sprintf(f, a...))
	}}, &warned
}

func TestDemoTexts(t *testing.T) {
	l, warned := loader(t)
	c, err := l.Calibration(t.Context(), recipe.Calibration{Source: "demo", Samples: 5, SeqLen: 2048})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tokens) != 5 || c.SeqLen != 512 || len(c.Tokens[4]) != 512 || !c.BOS {
		t.Errorf("%d windows of %d, BOS %v; want 5 of 512 with BOS", len(c.Tokens), c.SeqLen, c.BOS)
	}
	if len(*warned) != 1 || !strings.Contains((*warned)[0], "512 tokens instead of 2048") {
		t.Errorf("warned of %q, want once of the shorter window", *warned)
	}
	e, err := l.Evaluation(t.Context(), recipe.Eval{Source: "demo", SeqLen: 512})
	if err != nil {
		t.Fatal(err)
	}
	// 396,934 tokens by the Python tokenizers library.
	if len(e.Tokens) != 396934/512 || e.Tokens[0][0] != 0 {
		t.Errorf("%d windows beginning with %d, want %d with the BOS 0", len(e.Tokens), e.Tokens[0][0], 396934/512)
	}
	three, err := l.Evaluation(t.Context(), recipe.Eval{Source: "demo", SeqLen: 512, Windows: 3})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(three.Tokens, e.Tokens[:3], slices.Equal) || three.SHA256() == e.SHA256() {
		t.Error("the first three windows are not those of all")
	}
}

// writeIDs writes a .safetensors with int64 input_ids.
func writeIDs(t *testing.T, rows [][]int64) string {
	t.Helper()
	header, err := json.Marshal(map[string]any{"input_ids": map[string]any{
		"dtype": "I64", "shape": []int{len(rows), len(rows[0])}, "data_offsets": []int{0, 8 * len(rows) * len(rows[0])},
	}})
	if err != nil {
		t.Fatal(err)
	}
	data := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	data = append(data, header...)
	for _, row := range rows {
		for _, id := range row {
			data = binary.LittleEndian.AppendUint64(data, uint64(id))
		}
	}
	path := filepath.Join(t.TempDir(), "ids.safetensors")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGivenTokensNeedNoTokenizer(t *testing.T) {
	l, warned := loader(t)
	l.ReadFile = tokenizer.In(t.TempDir())
	path := writeIDs(t, [][]int64{{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10, 11, 4095}})
	c, err := l.Calibration(t.Context(), recipe.Calibration{Source: path, Samples: 128, SeqLen: 2048})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tokens) != 3 || c.SeqLen != 4 || c.Tokens[2][3] != 4095 {
		t.Errorf("%v of %d, want the three rows as they are", c.Tokens, c.SeqLen)
	}
	e, err := l.Evaluation(t.Context(), recipe.Eval{Source: path, SeqLen: 3, Windows: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Tokens) != 2 || e.SeqLen != 3 || !slices.Equal(e.Tokens[1], []int32{5, 6, 7}) {
		t.Errorf("%v of %d, want two rows cut to 3", e.Tokens, e.SeqLen)
	}
	if last := (*warned)[len(*warned)-1]; !strings.Contains(last, "4 tokens are truncated to 3") {
		t.Errorf("warned of %q, want of the cut", *warned)
	}
}

func TestErrorsNameTheSource(t *testing.T) {
	l, _ := loader(t)
	short := filepath.Join(t.TempDir(), "short.txt")
	if err := os.WriteFile(short, []byte("too short"), 0o666); err != nil {
		t.Fatal(err)
	}
	beyond := writeIDs(t, [][]int64{{1, 4096}})
	for _, c := range []struct {
		source string
		want   string
	}{
		{short, "short.txt"}, {beyond, "4096"}, {"nonesuch", `"nonesuch"`},
	} {
		_, err := l.Calibration(context.Background(), recipe.Calibration{Source: c.source, Samples: 1, SeqLen: 64})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("calibration on %s: got %v, want an error with %s", c.source, err, c.want)
		}
		_, err = l.Evaluation(context.Background(), recipe.Eval{Source: c.source, SeqLen: 64})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("evaluation on %s: got %v, want an error with %s", c.source, err, c.want)
		}
	}
}

// A Set comes back from its Ref and its bytes, and no other does.
func TestRefs(t *testing.T) {
	s := &Set{Source: "x", SeqLen: 2, BOS: true, Tokens: [][]int32{{1, 2}, {3, 1 << 20}}}
	ref, bytes := s.Ref(), s.Bytes()
	got, err := ref.Set(bytes, 1<<20+1)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(s) {
		t.Errorf("%v (%v), want %v", got, err, s)
	}
	for want, f := range map[string]func() (*Set, error){
		"token 1048576, want one below": func() (*Set, error) { return ref.Set(bytes, 1<<20) },
		"12 bytes, want windows of 2":   func() (*Set, error) { return ref.Set(bytes[:12], 1<<21) },
		"0 bytes":                       func() (*Set, error) { return ref.Set(nil, 1<<21) },
		"have hash":                     func() (*Set, error) { return ref.Set(bytes[8:], 1<<21) },
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

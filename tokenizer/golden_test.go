package tokenizer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The files of testdata are made by tools/golden_tokenizers.py, which states the
// versions and describes the formats.

func readGzip(t testing.TB, path string) []byte {
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
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func encode(t testing.TB, tok *Tokenizer, text string, special bool) []int32 {
	t.Helper()
	ids, err := tok.Encode(text, special)
	if err != nil {
		t.Fatalf("%.100q: %v", text, err)
	}
	return ids
}

func decode(t testing.TB, tok *Tokenizer, ids []int32, skipSpecial bool) string {
	t.Helper()
	text, err := tok.Decode(ids, skipSpecial)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func nastyStrings(t testing.TB) []string {
	t.Helper()
	var out []string
	for line := range bytes.Lines(readGzip(t, "testdata/strings.txt.gz")) {
		var s string
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// goldenTokenizers loads every tokenizer of testdata, by name.
func goldenTokenizers(t testing.TB) map[string]*Tokenizer {
	t.Helper()
	all := make(map[string]*Tokenizer)
	files, err := filepath.Glob("testdata/*.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		tok, err := Parse(readGzip(t, path))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".json.gz")] = tok
	}
	files, err = filepath.Glob("testdata/*.model")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := parseSentencePiece(data, llamaConfig{})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		all[strings.TrimSuffix(filepath.Base(path), ".model")] = tok
	}
	if len(all) < 28 {
		t.Errorf("%d tokenizers in testdata, want 28", len(all))
	}
	return all
}

// pythonPanics stands in the goldens where Python's library panics.
const pythonPanics = 1 << 20

func goldenIDs(t testing.TB, name string) [][]int32 {
	t.Helper()
	data := readGzip(t, "testdata/"+name+".ids.gz")
	out := [][]int32{nil}
	for len(data) > 0 {
		x, n := binary.Uvarint(data)
		data = data[n:]
		if x == 0 {
			out = append(out, nil)
			continue
		}
		out[len(out)-1] = append(out[len(out)-1], int32(x-1))
	}
	return out[:len(out)-1]
}

// Every id and every decoded text is Python's.
func TestGolden(t *testing.T) {
	texts := nastyStrings(t)
	if len(texts) < 1500 {
		t.Fatalf("%d strings, want 1500", len(texts))
	}
	for name, tok := range goldenTokenizers(t) {
		t.Run(name, func(t *testing.T) {
			want := goldenIDs(t, name)
			if len(want) != len(texts) {
				t.Fatalf("%d results, want %d", len(want), len(texts))
			}
			dec, _ := os.ReadFile("testdata/" + name + ".dec") // none for SentencePiece
			bad := 0
			for i, s := range texts {
				if bad >= 10 {
					break
				}
				got := encode(t, tok, s, i%2 == 0)
				if slices.Equal(want[i], []int32{pythonPanics}) {
					continue
				}
				if !slices.Equal(got, want[i]) {
					bad++
					t.Errorf("%d %q:\n got %v\nwant %v\n got %q\nwant %q", i, s, got, want[i], spell(tok, got), spell(tok, want[i]))
				}
				for k := range dec[min(2*i, len(dec)):min(2*i+2, len(dec))] {
					text := decode(t, tok, want[i], k == 1)
					if sum := byte(crc32.ChecksumIEEE([]byte(text))); sum != dec[2*i+k] && dec[2*i+k] != byte(crc32.ChecksumIEEE([]byte("panic"))) {
						bad++
						t.Errorf("%d %q: ids %v decode to %q (skip %v): sum %d, want %d", i, s, want[i], text, k == 1, sum, dec[2*i+k])
					}
				}
			}
		})
	}
}

func spell(t *Tokenizer, ids []int32) []string {
	var out []string
	for _, id := range ids {
		s, _ := t.Token(id)
		out = append(out, s)
	}
	return out
}

// evalText is the evaluation text of package demo, which this package, a lower
// one, does not import.
func evalText(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../demo/data/wikitext-2-test.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The ids of real text are Python's.
func TestEvaluationText(t *testing.T) {
	text := evalText(t)
	all := goldenTokenizers(t)
	demo, err := Load("../demo/data/model")
	if err != nil {
		t.Fatal(err)
	}
	all["demo"] = demo
	sums, err := os.ReadFile("testdata/eval.txt")
	if err != nil {
		t.Fatal(err)
	}
	part := string([]rune(text)[:300000])
	for name, tok := range all {
		s := part
		if name == "demo" {
			s = text
		}
		ids := encode(t, tok, s, true)
		sum := sha256.New()
		if err := binary.Write(sum, binary.LittleEndian, ids); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s %d %x\n", name, len(ids), sum.Sum(nil))
		if !strings.Contains("\n"+string(sums), "\n"+got) {
			t.Errorf("got %s, want the line of that name in testdata/eval.txt", got)
		}
		if name == "demo" && decode(t, tok, ids, true) != s {
			t.Error("the ids do not decode to the text")
		}
	}
}

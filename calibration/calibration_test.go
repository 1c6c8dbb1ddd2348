package calibration

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/corpus"
	"github.com/crepe-llm/crepe/demo"
)

// golden is testdata/sampling.json, made by tools/golden_calibration.py.
type golden struct {
	Random []struct {
		Seed          uint64
		Bits32        []uint32
		Bits, RandInt [][2]uint64
		After700      []int
	}
	Sampling []struct {
		Encoder, Kind   string
		Samples, SeqLen int
		Seed            uint64
		First           []int32
		SHA256          string
	}
}

func readGolden(t *testing.T) (g golden) {
	t.Helper()
	data, err := os.ReadFile("testdata/sampling.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Random) == 0 || len(g.Sampling) == 0 {
		t.Fatal("testdata/sampling.json is empty")
	}
	return g
}

func TestPyRandom(t *testing.T) {
	for _, g := range readGolden(t).Random {
		r := newPyRandom(g.Seed)
		for i, want := range g.Bits32 {
			if got := r.getrandbits(32); got != want {
				t.Fatalf("seed %d: word %d = %d, want %d", g.Seed, i, got, want)
			}
		}
		for _, b := range g.Bits {
			if got := r.getrandbits(int(b[0])); uint64(got) != b[1] {
				t.Fatalf("seed %d: getrandbits(%d) = %d, want %d", g.Seed, b[0], got, b[1])
			}
		}
		for _, b := range g.RandInt {
			if got := r.randint(0, int(b[0])); uint64(got) != b[1] {
				t.Fatalf("seed %d: randint(0, %d) = %d, want %d", g.Seed, b[0], got, b[1])
			}
		}
		var last []int
		for range 700 { // past the 624 words of a state
			last = append(last, r.randint(0, 999))
		}
		if last = last[len(last)-3:]; !slices.Equal(last, g.After700) {
			t.Fatalf("seed %d: after 700: %v, want %v", g.Seed, last, g.After700)
		}
	}
}

// bytesAndBOS is the encoder "bytes" of the golden file.
func bytesAndBOS(s string) ([]int32, error) {
	ids := []int32{256}
	for _, b := range []byte(s) {
		ids = append(ids, int32(b))
	}
	return ids, nil
}

// digest is the SHA-256 of all ids as little-endian int32.
func digest(windows [][]int32) string {
	h := sha256.New()
	for _, w := range windows {
		binary.Write(h, binary.LittleEndian, w)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// checkSampling compares Sample with what the reference draws from the demo's
// texts by the encoder of that name.
func checkSampling(t *testing.T, name string, encode func(string) ([]int32, error)) {
	t.Helper()
	demoSource, err := corpus.Parse("demo")
	if err != nil {
		t.Fatal(err)
	}
	documents, err := demoSource.Documents(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer documents.Close()
	checked := 0
	for _, g := range readGolden(t).Sampling {
		if g.Encoder != name {
			continue
		}
		checked++
		docs := documents
		if g.Kind == "running" {
			docs = texts{running: true, all: []string{string(demo.Evaluation())}}
		}
		windows, err := Sample(t.Context(), docs, encode, Options{g.Samples, g.SeqLen, g.Seed})
		if err != nil {
			t.Fatal(err)
		}
		if len(windows) != g.Samples || !slices.Equal(windows[0][:len(g.First)], g.First) || digest(windows) != g.SHA256 {
			t.Errorf("%s %s, %d windows of %d, seed %d: first %v, want %v; digest %s, want %s",
				name, g.Kind, g.Samples, g.SeqLen, g.Seed, windows[0][:len(g.First)], g.First, digest(windows), g.SHA256)
		}
	}
	if checked == 0 {
		t.Errorf("nothing in the golden file for %s", name)
	}
}

func TestSampleIsTheReferences(t *testing.T) { checkSampling(t, "bytes", bytesAndBOS) }

// texts are documents in memory.
type texts struct {
	all     []string
	running bool
	err     error
}

func (d texts) Len() int                   { return len(d.all) }
func (d texts) Text(i int) (string, error) { return d.all[i], d.err }
func (d texts) Running() bool              { return d.running }
func (d texts) Close() error               { return nil }

func TestTooShort(t *testing.T) {
	encoded := 0
	count := func(s string) ([]int32, error) { encoded++; return bytesAndBOS(s) }
	docs := texts{all: []string{"a", "abcdef", "abc"}}
	_, err := Sample(t.Context(), docs, count, Options{Samples: 4, SeqLen: 7}) // 7 tokens at most, want more than 7
	if err == nil || !strings.Contains(err.Error(), "longest of 3 documents has 7 tokens") || !strings.Contains(err.Error(), "--seqlen") {
		t.Errorf("documents: %v", err)
	}
	if encoded != 3 {
		t.Errorf("%d tokenisations of 3 documents, want 3", encoded)
	}
	_, err = Sample(t.Context(), texts{all: docs.all[1:2], running: true}, count, Options{Samples: 4, SeqLen: 7})
	if err == nil || !strings.Contains(err.Error(), "it has 7 tokens, want more than 7") {
		t.Errorf("running text: %v", err)
	}
	// The one document that is long enough, 8 tokens, has the one start 0.
	docs.all = append(docs.all, "abcdefg")
	windows, err := Sample(t.Context(), docs, count, Options{Samples: 4, SeqLen: 7})
	if want, _ := bytesAndBOS("abcdef"); err != nil || len(windows) != 4 || !slices.Equal(windows[3], want) {
		t.Errorf("windows %v, %v", windows, err)
	}
	if _, err := Sample(t.Context(), texts{}, count, Options{}); err == nil {
		t.Error("no documents: no error")
	}
}

func TestSampleEndsWithItsContextAndOnErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	docs := texts{all: []string{"a", "b"}}
	if _, err := Sample(ctx, docs, bytesAndBOS, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want %v", err, context.Canceled)
	}
	docs.err = errors.New("unreadable")
	if _, err := Sample(t.Context(), docs, bytesAndBOS, Options{}); !errors.Is(err, docs.err) {
		t.Errorf("err = %v, want %v", err, docs.err)
	}
}

func TestOptions(t *testing.T) {
	var o Options
	if err := o.Validate(); err != nil || o != (Options{128, 2048, 0}) {
		t.Errorf("defaults %+v, %v", o, err)
	}
	for _, o := range []Options{{Samples: -1}, {SeqLen: -1}, {SeqLen: 1}} {
		if err := o.Validate(); err == nil {
			t.Errorf("%+v is valid", o)
		}
	}
}

func TestWindows(t *testing.T) {
	ids := []int32{0, 1, 2, 3, 4, 5, 6}
	for _, tc := range []struct {
		seqLen, limit int
		want          string
	}{
		{3, 0, "[[0 1 2] [3 4 5]]"}, {3, 1, "[[0 1 2]]"}, {3, 9, "[[0 1 2] [3 4 5]]"}, {7, 0, "[[0 1 2 3 4 5 6]]"}, {8, 0, "[]"},
	} {
		if got := fmt.Sprint(Windows(ids, tc.seqLen, tc.limit)); got != tc.want {
			t.Errorf("Windows(%d, %d) = %s, want %s", tc.seqLen, tc.limit, got, tc.want)
		}
	}
}

func TestCheckIDs(t *testing.T) {
	if err := CheckIDs([][]int32{{0, 9}}, 10); err != nil {
		t.Error(err)
	}
	for _, id := range []int32{10, -1} {
		err := CheckIDs([][]int32{{0, 9}, {1, id}}, 10)
		if err == nil || !strings.Contains(err.Error(), "sample 1, position 1") {
			t.Errorf("id %d: %v", id, err)
		}
	}
}

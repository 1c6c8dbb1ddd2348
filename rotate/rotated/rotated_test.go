package rotated_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/rotate"
	"github.com/crepe-llm/crepe/rotate/rotated"
	"github.com/crepe-llm/crepe/tensor"
)

const fixtures = "../../testdata/fixtures"

// wide shows a folder with all its weights in float32, so that turning them rounds to
// no other type.
type wide struct{ inv *checkpoint.Inventory }

func (s wide) Path() string       { return s.inv.Dir() }
func (s wide) Stored() []*os.File { return nil }
func (s wide) Close() error       { return s.inv.Close() }
func (s wide) Files() map[string][]byte {
	return map[string][]byte{"config.json": s.inv.Config(), "note.txt": []byte("carried over")}
}

func (s wide) Tensors() []checkpoint.Tensor {
	all := s.inv.Tensors()
	for i := range all {
		all[i].DType, all[i].Size = tensor.F32, 4*all[i].Elements()
	}
	return all
}

func (s wide) ReadAt(t checkpoint.Tensor, dst []byte, off int64) error {
	src, _ := s.inv.Tensor(t.Name)
	n := int(src.Elements())
	w, f := tensor.NewWeight(src.DType, 1, n), tensor.NewWeight(tensor.F32, 1, n)
	if err := s.inv.Read(src, w.Bytes()); err != nil {
		return err
	}
	row := make([]float32, n)
	w.Row(row, 0)
	f.SetRow(0, 0, row)
	copy(dst, f.Bytes()[off:])
	return nil
}

func open(t *testing.T, inv *checkpoint.Inventory, err error) (*checkpoint.Inventory, *model.Model) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	return inv, m
}

func fixture(t *testing.T, name string) (*checkpoint.Inventory, *model.Model) {
	t.Helper()
	inv, err := checkpoint.Open(filepath.Join(fixtures, name))
	if err != nil {
		t.Fatal(err)
	}
	f32, err := checkpoint.FromSource(wide{inv})
	return open(t, f32, err)
}

// ids returns the sequences that a fixture's goldens are of.
func ids(t *testing.T, name string) [][]int32 {
	all := golden.Read(t, filepath.Join(fixtures, name, "golden.safetensors"))["input_ids"]
	var out [][]int32
	n := all.Shape[1]
	for i := range all.Shape[0] {
		row := make([]int32, n)
		for j := range row {
			row[j] = int32(all.I64[i*n+j])
		}
		out = append(out, row)
	}
	return out
}

func options(t *testing.T, name string) rotated.Options {
	sequences := ids(t, name)
	return rotated.Options{
		States:  func(string) engine.Place { return engine.Place{} },
		Options: rotate.Options{Stream: true, Values: true, Steps: 6, Vectors: 400},
		Tokens:  sequences, SeqLen: len(sequences[0]), Output: filepath.Join(t.TempDir(), "out"),
		Depends: provenance.Record{{Name: "test", Value: "1"}},
	}
}

// rotateTo rotates m to opt.Output.
func rotateTo(t *testing.T, ctx context.Context, inv *checkpoint.Inventory, m *model.Model, opt rotated.Options) (*rotated.Result, error) {
	t.Helper()
	p, err := rotated.NewPlan(inv, m, opt.Options, len(opt.Tokens)*opt.SeqLen)
	if err != nil {
		return nil, err
	}
	return rotated.Folder(ctx, inv, m, p, nil, opt)
}

// logits returns what m predicts after every token of a sequence.
func logits(t *testing.T, m *model.Model, ids []int32) tensor.Matrix {
	t.Helper()
	x, st := m.NewMat(len(ids)), m.NewState()
	err := m.Embed(x, ids)
	for b := 0; b < m.Blocks() && err == nil; b++ {
		var block *model.Block
		if block, err = m.LoadBlock(b); err == nil {
			err = block.Run(st, x, model.Mode{})
			block.Release()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	h, err := m.LoadHead()
	if err != nil {
		t.Fatal(err)
	}
	y, out := m.Engine().NewMat(len(ids), m.Config.Vocab), tensor.NewMatrix(len(ids), m.Config.Vocab)
	if err := h.Logits(y, x); err != nil {
		t.Fatal(err)
	}
	m.Engine().Download(out, y)
	return out
}

// What of the fixtures' streams cannot be turned, and why.
var fixed = map[string]string{
	"gemma2": "a norm behind", "gemma3-text": "a norm behind",
}

// The logits of every fixture are those of the goldens, whatever of it is turned; the
// entropies fall; the folder has a head of its own where one was tied.
func TestLogitsStay(t *testing.T) {
	for _, name := range golden.Folders(t, fixtures) {
		if name == "qwen3_5-vl" { // nothing of it can be turned, see TestParts
			continue
		}
		t.Run(name, func(t *testing.T) {
			inv, m := fixture(t, name)
			tolerance := 1e-4
			if name == "qwen3_5" {
				tolerance = 2e-4 // what float32 moves the goldens by, see the fixtures' README
			}
			opt := options(t, name)
			res, err := rotateTo(t, t.Context(), inv, m, opt)
			if err != nil {
				t.Fatal(err)
			}
			why, is := fixed[name]
			if (res.Stream == nil) != is || !strings.Contains(strings.Join(res.Left, ";"), why) {
				t.Fatalf("stream %v, left %q, want it %q", res.Stream, res.Left, why)
			}
			for _, e := range []*rotated.Measured{res.Stream, res.Values} {
				if e != nil && !(e.After < e.Before && e.Steps > 0) {
					t.Errorf("entropy %+v", *e)
				}
			}
			if res.Values == nil && !strings.HasPrefix(name, "qwen3_5") {
				t.Errorf("no heads' values are turned: %q", res.Left)
			}
			out, err := checkpoint.Open(opt.Output)
			_, turned := open(t, out, err)
			want := golden.Read(t, filepath.Join(fixtures, name, "golden.safetensors"))["logits"].F32
			for i, seq := range opt.Tokens {
				got := logits(t, turned, seq)
				own := want[i*len(got.Data) : (i+1)*len(got.Data)]
				if off := golden.MaxAbs(got.Data, own); !(off <= 3e-4) {
					t.Errorf("sequence %d: logits are %v off", i, off)
				}
				if off := golden.MaxAbs(got.Data, logits(t, m, seq).Data); !(off <= tolerance) {
					t.Errorf("sequence %d: logits are %v off those before", i, off)
				}
			}
			if res.Stream != nil {
				if _, ok := out.Tensor("lm_head.weight"); !ok || strings.Contains(string(out.Config()), `"tie_word_embeddings": true`) {
					t.Error("no head of its own")
				}
			}
			changed(t, inv, out, res.Stream != nil)
		})
	}
}

// changed checks that weights of the blocks have changed, norms are 1, and other files
// are there.
func changed(t *testing.T, inv, out *checkpoint.Inventory, stream bool) {
	t.Helper()
	same, other := 0, 0
	for _, src := range inv.Tensors() {
		dst, ok := out.Tensor(src.Name)
		if !ok {
			t.Fatalf("%s is missing", src.Name)
		}
		a, b := make([]byte, src.Size), make([]byte, dst.Size)
		if err := errors.Join(inv.Read(src, a), out.Read(dst, b)); err != nil {
			t.Fatal(err)
		}
		if string(a) == string(b) {
			same++
		} else {
			other++
		}
	}
	if stream && other < same/2 || other == 0 {
		t.Errorf("%d tensors are as they were, %d are not", same, other)
	}
	if data, err := os.ReadFile(filepath.Join(out.Dir(), "note.txt")); err != nil || string(data) != "carried over" {
		t.Errorf("note.txt: %q, %v", data, err)
	}
}

// One of the two alone, what cannot be turned at all, and a folder that is there.
func TestParts(t *testing.T) {
	inv, m := fixture(t, "llama3-gqa")
	for _, part := range []string{rotate.Stream, rotate.Values} {
		opt := options(t, "llama3-gqa")
		opt.Stream, opt.Values, opt.Measure.Lost = part == rotate.Stream, part == rotate.Values, 0.5
		res, err := rotateTo(t, t.Context(), inv, m, opt)
		if err != nil || (res.Stream != nil) != opt.Stream || (res.Values != nil) != opt.Values || res.For != rotate.Loss {
			t.Fatalf("%s: %+v, %v", part, res, err)
		}
		_, err = rotateTo(t, t.Context(), inv, m, opt)
		if err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("%s: over a folder: %v", part, err)
		}
		record, err := rotated.ReadRecord(opt.Output)
		if err != nil || record.Provenance != opt.Depends.Key() || (record.Stream != nil) != opt.Stream {
			t.Errorf("%s: record %+v, %v", part, record, err)
		}
	}
	inv, m = fixture(t, "gemma2")
	if _, err := rotated.NewPlan(inv, m, rotate.Options{Stream: true, Steps: 1, Vectors: 300}, 48); err == nil || !strings.Contains(err.Error(), "nothing can be turned: the residual stream: Gemma2ForCausalLM: block 0 has a norm behind") {
		t.Errorf("Gemma's stream: %v", err)
	}
	inv, m = fixture(t, "qwen3_5-vl")
	opt := options(t, "qwen3_5-vl")
	if _, err := rotated.NewPlan(inv, m, opt.Options, 48); err == nil || !strings.Contains(err.Error(), "is not of the text model") {
		t.Errorf("a model with a vision tower: %v", err)
	}
}

// A rotation that is stopped goes on with the same bytes: while it learns, and while it
// writes.
func TestResume(t *testing.T) {
	inv, m := fixture(t, "qwen2")
	opt := options(t, "qwen2")
	if _, err := rotateTo(t, t.Context(), inv, m, opt); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(opt.Output, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"rotate: block 2", "rotate: write"} {
		opt := options(t, "qwen2")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		opt.Progress = func(u progress.Update) {
			if strings.HasPrefix(u.Phase, at) {
				cancel()
			}
		}
		if _, err := rotateTo(t, ctx, inv, m, opt); !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", at, err)
		}
		opt.Resume = true
		learned := false
		opt.Progress = func(u progress.Update) { learned = learned || strings.HasPrefix(u.Phase, "rotate: block") }
		res, err := rotateTo(t, t.Context(), inv, m, opt)
		if err != nil || res.Stream == nil || learned != (at == "rotate: block 2") {
			t.Fatalf("%s: %+v, %v; learned again: %v", at, res, err, learned)
		}
		got, err := os.ReadFile(filepath.Join(opt.Output, "model.safetensors"))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: other bytes, %v", at, err)
		}
	}
}

// A record is read to its bound alone.
func TestRecordOfNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, checkpoint.RotationRecordName), []byte("null\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := rotated.ReadRecord(dir); err == nil || !strings.HasSuffix(err.Error(), checkpoint.RotationRecordName+": null, want an object") {
		t.Errorf("error %v", err)
	}
}

func TestRecordOfATerabyte(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, checkpoint.RotationRecordName)
	if err := os.WriteFile(path, []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := rotated.ReadRecord(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	if _, err := rotated.ReadRecord(dir); err == nil || !strings.Contains(err.Error(), "want at most 16777216") {
		t.Errorf("%v, want the bound", err)
	}
}

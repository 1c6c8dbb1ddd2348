package pack

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
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

const fixture = "../testdata/fixtures/llama3-gqa"

func open(t *testing.T, dir string) (*checkpoint.Inventory, *model.Model) {
	t.Helper()
	inv, err := checkpoint.Open(dir)
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

// sparse writes the fixture with two of three weights of every Linear set to zero.
func sparse(t *testing.T) string {
	t.Helper()
	inv, m := open(t, fixture)
	plan, err := checkpoint.NewPlan(inv, 1<<17)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "sparse")
	w, err := checkpoint.Create(dir, plan, inv, checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for b := range m.Blocks() {
		for _, l := range m.Linears(b) {
			name := l.Name + ".weight"
			from, _ := inv.Tensor(name)
			x := tensor.NewWeight(l.DType, l.Rows, l.Cols)
			if err := inv.Read(from, x.Bytes()); err != nil {
				t.Fatal(err)
			}
			for k := range l.Rows * l.Cols {
				if k%3 > 0 {
					x.Zero(k)
				}
			}
			if err := w.WriteTensor(name, x.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range w.Missing() {
		if err := w.CopyTensor(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A packing that is interrupted leaves nothing, and one that is not is what it says.
func TestFolderAppearsWhole(t *testing.T) {
	plain := sparse(t)
	inv, m := open(t, plain)
	if len(inv.Layouts()) < 2 {
		t.Fatal("one shard, want several")
	}
	dir := filepath.Join(t.TempDir(), "packed")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Folder(ctx, inv, m, Options{Output: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	res, err := Folder(context.Background(), inv, m, Options{Output: dir})
	if err != nil {
		t.Fatal(err)
	}
	packed, _ := open(t, dir)
	stored := int64(0)
	for _, x := range packed.Tensors() {
		stored += packed.Stored(x)
	}
	if res.Linears != 28 || res.Kept*3 < res.Weights || res.Kept*3 > res.Weights+3*int64(res.Linears) || stored != res.All || packed.WeightBytes() != res.AllPlain {
		t.Errorf("%+v, %d bytes stored of %d", *res, stored, packed.WeightBytes())
	}
	if _, err := Folder(context.Background(), inv, m, Options{Output: dir}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second time: %v", err)
	}
	if _, err := Folder(context.Background(), inv, m, Options{Output: dir, Overwrite: true}); err != nil {
		t.Errorf("a second time with Overwrite: %v", err)
	}
}

// A record that does not fit the folder is refused.
func TestUnpackRefusesAnotherRecord(t *testing.T) {
	inv, m := open(t, sparse(t))
	for damage, want := range map[[2]string]string{
		{`"model.norm.weight"`, `"model.norm.wait"`}:                   "want each tensor of the folder once",
		{`"model.norm.weight"`, `"model.layers.0.mlp.up_proj.weight"`}: "want each tensor of the folder once",
		{`"format": "sparse-bitmask"`, `"format": "sparse-bits"`}:      `format "sparse-bits", want sparse-bitmask`,
		{`"format"`, `format`}:                                         "invalid character",
		{`"plain": {`, `"plain": 3, "x": {`}:                           "plain: number, want an object",
		{`"config.json": "`, `"config.json": "0`}:                      "config.json does not come back as it was packed",
		{`"model-00001-of-`, `"../model-00001-of-`}:                    `weight file "../model-00001-of-`,
		{`"model.layers.3.mlp.up_proj.weight"`, `"model.norm.weight"`}: "once",
	} {
		dir := filepath.Join(t.TempDir(), "packed")
		if _, err := Folder(context.Background(), inv, m, Options{Output: dir}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, checkpoint.PackRecordName)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), damage[0]) {
			t.Fatalf("%s: no %s in it (%v)", path, damage[0], err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), damage[0], damage[1], -1)), 0o666); err != nil {
			t.Fatal(err)
		}
		packed, _ := open(t, dir)
		out := filepath.Join(t.TempDir(), "plain")
		_, err = Unpack(context.Background(), packed, Options{Output: out})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q", damage, err, want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%v: a folder all the same", damage)
		}
	}
}

package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

func TestOpenFollowsIndex(t *testing.T) {
	files := sharded(t)
	dir := folder(t, files)
	inv := open(t, dir)
	var got []string
	for _, x := range inv.Tensors() {
		got = append(got, x.File+" "+x.Name)
	}
	want := "a.safetensors embed, a.safetensors 0.q, a.safetensors 0.norm, b.safetensors 1.q, b.safetensors 1.norm, b.safetensors steps"
	if strings.Join(got, ", ") != want {
		t.Errorf("tensors %s, want %s", strings.Join(got, ", "), want)
	}
	x, _ := inv.Tensor("1.q")
	file := files["b.safetensors"]
	if got := read(t, inv, "1.q"); string(got) != file[x.Offset:x.Offset+x.Size] {
		t.Errorf("1.q: other bytes than the file's")
	}
	part := make([]byte, 16)
	if err := inv.ReadAt(x, part, 48); err != nil || !bytes.Equal(part, read(t, inv, "1.q")[48:64]) {
		t.Errorf("1.q from byte 48: %v, %x", err, part)
	}
	if got, want := inv.WeightBytes(), int64(256+128+32+128+32+8); got != want {
		t.Errorf("WeightBytes %d, want %d", got, want)
	}
}

// TestOpenShardNames opens an index whose files have unusual names, as one
// published model has.
func TestOpenShardNames(t *testing.T) {
	inv := open(t, folder(t, map[string]string{
		"model.safetensors-00001-of-00002.safetensors": string(safetensorsFile(t, 1, blocks[:1])),
		"rest of it.safetensors":                       string(safetensorsFile(t, 1, blocks[1:2])),
		indexName:                                      `{"weight_map": {"embed": "model.safetensors-00001-of-00002.safetensors", "0.q": "rest of it.safetensors"}}`,
	}))
	if len(inv.Tensors()) != 2 {
		t.Errorf("%d tensors, want 2", len(inv.Tensors()))
	}
}

func TestOpenUnindexed(t *testing.T) {
	file := string(safetensorsFile(t, 1, blocks))
	other := string(safetensorsFile(t, 2, []spec{{"logits", tensor.F32, []int{2}}}))
	for name, files := range map[string]map[string]string{
		"the usual name":         {singleName: file},
		"beside another":         {singleName: file, "golden.safetensors": other},
		"alone":                  {"weights.safetensors": file},
		"alone but for a hidden": {"weights.safetensors": file, "._weights.safetensors": "x"},
		"beside a pickle":        {singleName: file, "pytorch_model.bin": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if inv := open(t, folder(t, files)); len(inv.Tensors()) != len(blocks) {
				t.Errorf("%d tensors, want %d", len(inv.Tensors()), len(blocks))
			}
		})
	}
}

// TestOpenUnreferenced: a tensor that the index does not list is part of the
// checkpoint all the same.
func TestOpenUnreferenced(t *testing.T) {
	inv := open(t, folder(t, map[string]string{
		"a.safetensors": string(safetensorsFile(t, 1, blocks)),
		indexName:       `{"weight_map": {"embed": "a.safetensors"}}`,
	}))
	if _, ok := inv.Tensor("0.q"); !ok {
		t.Errorf("0.q, which is in the file and not in the index, is lost")
	}
}

func TestOpenRefuses(t *testing.T) {
	file := string(safetensorsFile(t, 1, blocks))
	mapped := func(tensor, file string) string { return fmt.Sprintf(`{"weight_map": {%q: %q}}`, tensor, file) }
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"no weights", map[string]string{"README.md": "hi"}, []string{"no model.safetensors"}},
		{"two, no index", map[string]string{"a.safetensors": file, "b.safetensors": file}, []string{"2 safetensors files", "a.safetensors", indexName}},
		{"pickle", map[string]string{"pytorch_model-00001-of-00002.bin": "x"}, []string{"pytorch_model*.bin", "convert", "save_pretrained"}},
		{"no tensor", map[string]string{singleName: string(withHeader("{}", 0))}, []string{singleName, "no tensor"}},
		{"broken", map[string]string{singleName: file[:len(file)-1]}, []string{singleName, "truncated"}},
		{"missing shard", map[string]string{"a.safetensors": file, indexName: `{"weight_map": {"embed": "a.safetensors", "x": "gone.safetensors"}}`}, []string{"gone.safetensors", "missing", indexName}},
		{"outside: parent", map[string]string{indexName: mapped("embed", "../a.safetensors")}, []string{"same folder", "../a.safetensors"}},
		{"outside: absolute", map[string]string{indexName: mapped("embed", "/etc/passwd")}, []string{"same folder"}},
		{"outside: windows", map[string]string{indexName: mapped("embed", `..\a.safetensors`)}, []string{"same folder"}},
		{"outside: drive", map[string]string{indexName: mapped("embed", `C:a.safetensors`)}, []string{"same folder"}},
		{"outside: dots", map[string]string{indexName: mapped("embed", "..")}, []string{"same folder"}},
		{"a folder", map[string]string{"a.safetensors/x": "", indexName: mapped("embed", "a.safetensors")}, []string{"a.safetensors: a folder, want a regular file"}},
		{"empty name", map[string]string{indexName: mapped("embed", "")}, []string{"same folder"}},
		{"index of nothing", map[string]string{indexName: `{"weight_map": {}}`}, []string{"no tensor in weight_map"}},
		{"index without map", map[string]string{indexName: `{}`}, []string{"no tensor in weight_map"}},
		{"index not JSON", map[string]string{indexName: "model"}, []string{indexName, "want '{'"}},
		{"index with a tensor twice", map[string]string{indexName: `{"weight_map": {"a": "x", "a": "y"}}`}, []string{`"a" is there twice`}},
		{"index with two maps", map[string]string{indexName: `{"weight_map": {"a": "x"}, "weight_map": {}}`}, []string{"is there twice"}},
		{"index nested", map[string]string{indexName: `{"metadata": {"a": ` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`}, []string{"nested deeper"}},
		{"config too large", map[string]string{singleName: file, configName: strings.Repeat(" ", maxConfig+1)}, []string{configName, "want at most"}},
		{"a pointer for a shard", map[string]string{"a.safetensors": lfsPointer, indexName: mapped("embed", "a.safetensors")}, []string{"a.safetensors", "Git LFS pointer", "git lfs pull"}},
		{"a pointer for the weights", map[string]string{singleName: lfsPointer}, []string{singleName, "git lfs pull"}},
		{"a pointer for the index", map[string]string{indexName: lfsPointer}, []string{indexName, "git lfs pull"}},
		{"a pointer for the config", map[string]string{singleName: file, configName: lfsPointer}, []string{configName, "git lfs pull"}},
		{"an adapter", map[string]string{"adapter_model.safetensors": file, "adapter_config.json": `{"base_model_name_or_path": "org/base"}`}, []string{"an adapter", `"org/base"`, "merge"}},
		{"gguf", map[string]string{"model-Q4_K_M.gguf": "GGUF"}, []string{singleName, `"model-Q4_K_M.gguf"`, "llama.cpp's format"}},
		{"file is a number", map[string]string{indexName: `{"weight_map": {"a": 1}}`}, []string{"begin a string"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv, err := Open(folder(t, c.files))
			if err == nil {
				inv.Close()
			}
			wantError(t, err, c.want...)
		})
	}
	t.Run("no folder", func(t *testing.T) {
		_, err := Open(filepath.Join(t.TempDir(), "absent"))
		wantError(t, err, "absent")
	})
	t.Run("a file", func(t *testing.T) {
		dir := folder(t, nil)
		_, err := Open(filepath.Join(dir, configName))
		wantError(t, err, "want a model's folder")
	})
	t.Run("an adapter without config", func(t *testing.T) {
		dir := folder(t, map[string]string{"adapter_model.safetensors": file, "adapter_config.json": `{}`})
		os.Remove(filepath.Join(dir, configName))
		_, err := Open(dir)
		wantError(t, err, "an adapter", "its base model")
	})
	t.Run("the folder above", func(t *testing.T) {
		_, err := Open(filepath.Dir(folder(t, map[string]string{singleName: file})))
		wantError(t, err, "no config.json", `in its folder "model"`)
	})
	t.Run("no config", func(t *testing.T) {
		dir := folder(t, map[string]string{singleName: file})
		os.Remove(filepath.Join(dir, configName))
		_, err := Open(dir)
		wantError(t, err, "no config.json")
	})
}

// lfsPointer is what git leaves in a file's place where Git LFS is not installed.
const lfsPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 386976\n"

// TestWhichFileHoldsTheWeights: as transformers 5.24 chooses
// (_get_resolved_checkpoint_files of its modeling_utils).
func TestWhichFileHoldsTheWeights(t *testing.T) {
	whole, other := string(safetensorsFile(t, 1, blocks)), string(safetensorsFile(t, 2, blocks))
	more := string(safetensorsFile(t, 1, append(slices.Clone(blocks), spec{"x", tensor.F32, []int{1}})))
	at := len(whole) - 8 - 32 - 40 // in 1.q, before 1.norm and steps
	edited := whole[:at] + string([]byte{whole[at] ^ 1}) + whole[at+1:]
	index := func(files ...string) string {
		var entries []string
		for i, s := range blocks {
			entries = append(entries, fmt.Sprintf("%q: %q", s.name, files[min(i, len(files)-1)]))
		}
		return `{"weight_map": {` + strings.Join(entries, ", ") + `}}`
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		from  string // the file that 1.q is read from
		warn  string // part of the only warning; "": none
	}{
		{"a stale index of files that are gone", map[string]string{singleName: whole, indexName: index("gone.safetensors")}, singleName, ""},
		{"a stale index that is broken", map[string]string{singleName: whole, indexName: "{"}, singleName, ""},
		{"two sets that differ", map[string]string{singleName: whole, "a.safetensors": other, indexName: index("a.safetensors")},
			singleName, "model.safetensors and the 1 files of model.safetensors.index.json hold two different models (embed differs): model.safetensors is read"},
		{"two sets that differ in one byte", map[string]string{singleName: whole, "a.safetensors": edited, indexName: index("a.safetensors")},
			singleName, "hold two different models (1.q differs)"},
		{"a set with a tensor more", map[string]string{singleName: whole, "a.safetensors": more, indexName: strings.Replace(index("a.safetensors"), `{"embed"`, `{"x": "a.safetensors", "embed"`, 1)},
			singleName, "hold two different models (x differs)"},
		{"two sets alike", map[string]string{singleName: whole, "a.safetensors": whole, indexName: index("a.safetensors")}, singleName, ""},
		{"an index of the single file", map[string]string{singleName: whole, indexName: index(singleName)}, singleName, ""},
		{"an index that lists what nothing has", map[string]string{"a.safetensors": whole,
			indexName: `{"weight_map": {"absent": "a.safetensors", "embed": "a.safetensors"}}`}, "a.safetensors", ""},
		{"an index that names another file", map[string]string{
			"a.safetensors": string(safetensorsFile(t, 1, blocks[:2])), "b.safetensors": string(safetensorsFile(t, 1, blocks[2:])),
			indexName: index("b.safetensors", "a.safetensors")}, "b.safetensors", ""},
		{"a tensor in two files", map[string]string{
			"a.safetensors": whole, "b.safetensors": string(safetensorsFile(t, 2, blocks[3:4])),
			indexName: index("b.safetensors", "a.safetensors")}, "b.safetensors", "tensor 1.q is in a.safetensors and in b.safetensors: the latter's is taken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := open(t, folder(t, c.files))
			x, ok := inv.Tensor("1.q")
			if !ok || x.File != c.from || len(inv.Tensors()) != len(blocks) {
				t.Fatalf("1.q in %q among %d tensors, want it in %s among %d", x.File, len(inv.Tensors()), c.from, len(blocks))
			}
			file := c.files[c.from]
			if got := read(t, inv, "1.q"); string(got) != file[x.Offset:x.Offset+x.Size] {
				t.Errorf("1.q: other bytes than those of %s", c.from)
			}
			switch w := inv.Warnings(); {
			case c.warn == "" && len(w) > 0, c.warn != "" && (len(w) != 1 || !strings.Contains(w[0], c.warn)):
				t.Errorf("warnings %q, want %q", w, c.warn)
			}
		})
	}
}

// TestMetadataNull: as the safetensors library reads it.
func TestMetadataNull(t *testing.T) {
	inv := open(t, folder(t, map[string]string{singleName: string(withHeader(`{"__metadata__":null,"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1))}))
	if len(inv.Tensors()) != 1 || len(inv.metadata) != 0 {
		t.Errorf("tensors %v, metadata %v, want one and none", inv.Tensors(), inv.metadata)
	}
	_, err := Open(folder(t, map[string]string{singleName: string(withHeader(`{"__metadata__":nil}`, 0))}))
	wantError(t, err, "__metadata__")
}

// cacheOf returns a folder of links to files elsewhere, as the snapshots of a
// Hugging Face cache are.
func cacheOf(t *testing.T, files map[string]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "models--org--name")
	dir := filepath.Join(root, "snapshots", "main")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, text := range files {
		blob := fmt.Sprintf("blob%d", n)
		n++
		write(t, root, map[string]string{"blobs/" + blob: text})
		if err := os.Symlink(filepath.Join("..", "..", "blobs", blob), filepath.Join(dir, name)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	return dir
}

func TestOpenCacheLinks(t *testing.T) {
	dir := cacheOf(t, map[string]string{
		"config.json": "{}", singleName: string(safetensorsFile(t, 1, blocks)), "tokenizer.json": "{}",
	})
	inv := open(t, dir)
	if len(inv.Tensors()) != len(blocks) || len(inv.Aux()) != 2 {
		t.Errorf("%d tensors and %v, want %d and config.json, tokenizer.json", len(inv.Tensors()), inv.Aux(), len(blocks))
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if inv := open(t, link); len(inv.Aux()) != 2 {
		t.Errorf("through a link to the folder: %v, want config.json, tokenizer.json", inv.Aux())
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "vocab.json")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	wantError(t, err, "vocab.json", "missing")
}

func TestAux(t *testing.T) {
	file := string(safetensorsFile(t, 1, blocks))
	dir := folder(t, map[string]string{
		singleName: file,
		// Carried.
		"tokenizer.json": "{}", "tokenizer.model": "x", "README.md": "# hi", "sub/deep/notes.txt": "x",
		"adapter_model.safetensors": string(safetensorsFile(t, 3, []spec{{"lora", tensor.F32, []int{2}}})),
		"odd.safetensors":           "not one", "original/params.json": "{}", "bin": "x",
		// Left out.
		"consolidated.safetensors": file, "consolidated.safetensors.index.json": "{}", "fp32/copy.safetensors": file,
		"pytorch_model.bin": "x", "pytorch_model.bin.index.json": "{}", "original/consolidated.00.pth": "x",
		"model.Q4_K_M.gguf": "x", "onnx/model.onnx": "x", "onnx/model.onnx_data": "x", "tf_model.h5": "x",
		"flax_model.msgpack": "x", ".gitattributes": "x", ".cache/huggingface/x": "x", "sub/.hidden": "x",
	})
	inv := open(t, dir)
	var got []string
	for _, a := range inv.Aux() {
		got = append(got, a.Path)
	}
	want := "README.md adapter_model.safetensors bin config.json odd.safetensors original/params.json sub/deep/notes.txt tokenizer.json tokenizer.model"
	if strings.Join(got, " ") != want {
		t.Errorf("carried %s\nwant    %s", strings.Join(got, " "), want)
	}
	got = nil
	for _, l := range inv.LeftOut() {
		if l.Reason == "" {
			t.Errorf("%s is left out without a reason", l.Path)
		}
		got = append(got, l.Path)
	}
	want = ".cache/ .gitattributes consolidated.safetensors consolidated.safetensors.index.json flax_model.msgpack fp32/copy.safetensors model.Q4_K_M.gguf onnx/model.onnx onnx/model.onnx_data original/consolidated.00.pth pytorch_model.bin pytorch_model.bin.index.json sub/.hidden tf_model.h5"
	if strings.Join(got, " ") != want {
		t.Errorf("left out %s\nwant     %s", strings.Join(got, " "), want)
	}
}

// TestReadShrunk: a file that becomes shorter while it is open is an error.
func TestReadShrunk(t *testing.T) {
	dir := folder(t, map[string]string{singleName: string(safetensorsFile(t, 1, blocks))})
	inv := open(t, dir)
	if err := os.Truncate(filepath.Join(dir, singleName), 700); err != nil {
		t.Fatal(err)
	}
	x, _ := inv.Tensor("steps")
	wantError(t, inv.Read(x, make([]byte, x.Size)), singleName, "steps", "shorter")
	_, err := inv.Hashes(nil)
	wantError(t, err, singleName, "shorter")
}

func TestReadPanics(t *testing.T) {
	inv := open(t, folder(t, map[string]string{singleName: string(safetensorsFile(t, 1, blocks))}))
	x, _ := inv.Tensor("0.q")
	for name, f := range map[string]func(){
		"short":    func() { inv.Read(x, make([]byte, 127)) },
		"past end": func() { inv.ReadAt(x, make([]byte, 2), 127) },
		"before":   func() { inv.ReadAt(x, make([]byte, 2), -1) },
		"overflow": func() { inv.ReadAt(x, make([]byte, 2), 1<<63-1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestHashes(t *testing.T) {
	files := sharded(t)
	inv := open(t, folder(t, files))
	var last, total int64
	got, err := inv.Hashes(func(done, of int64) {
		if done < last {
			t.Errorf("progress from %d back to %d", last, done)
		}
		last, total = done, of
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(files["a.safetensors"]) + len(files["b.safetensors"])); last != want || total != want {
		t.Errorf("progress ended at %d of %d, want %d", last, total, want)
	}
	if len(got) != 3 {
		t.Errorf("hashes of %d files, want 3", len(got))
	}
	files[configName] = "{}\n"
	for name, sum := range got {
		want := sha256.Sum256([]byte(files[name]))
		if sum != hex.EncodeToString(want[:]) {
			t.Errorf("%s: %s, want %x", name, sum, want)
		}
	}
}

// FuzzParseIndex checks that an index is refused or names only files beside
// it, and is written so that it reads back the same.
func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(sharded(f)[indexName]))
	f.Add([]byte(`{"metadata": null, "weight_map": {"a\"\u00e9": "b"}, "x": [1, {"y": -2.5e3}]}`))
	f.Add([]byte(`{"weight_map": {"a": "../b"}}`))
	f.Add([]byte(`{"metadata": {"total_size": 1e999}, "weight_map": {"a": "b", "absent": "b"}}`))
	f.Add([]byte(lfsPointer))
	f.Fuzz(func(t *testing.T, text []byte) {
		var x *index
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(text)), func() { x, err = parseIndex(text) })
		if err != nil {
			return
		}
		var shards []Shard
		for _, name := range x.names {
			file := x.file[name]
			if filepath.Base(file) != file || !filepath.IsLocal(file) || strings.ContainsAny(file, `/\`) {
				t.Fatalf("file %q is not beside the index", file)
			}
			shards = append(shards, Shard{Name: file, Tensors: []Tensor{{Name: name}}})
		}
		y, err := parseIndex(encodeIndex(x.metadata, shards))
		if err != nil {
			t.Fatalf("what was written: %v", err)
		}
		if fmt.Sprint(y.names) != fmt.Sprint(x.names) || fmt.Sprint(y.file) != fmt.Sprint(x.file) {
			t.Fatalf("read back %v, want %v", y.file, x.file)
		}
	})
}

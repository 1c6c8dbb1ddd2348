package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/regular"
)

// weightFiles returns the files of dir that hold the weights, and the index
// that names them, nil if none does.
func weightFiles(dir string) ([]string, *index, error) {
	single := filepath.Join(dir, singleName)
	if st, err := os.Stat(single); err == nil && st.Mode().IsRegular() {
		return []string{singleName}, nil, nil
	}
	x, err := readIndex(filepath.Join(dir, indexName))
	if err != nil {
		return nil, nil, err
	}
	if x != nil {
		return x.files(), x, nil
	}
	if _, err := os.Lstat(single); err == nil {
		return []string{singleName}, nil, nil // a broken link or a pipe, as opening it will say
	}
	names, err := unindexed(dir)
	return names, nil, err
}

func readIndex(path string) (*index, error) {
	text, err := regular.Read(path, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return x, nil
}

// files returns the names of the files that the index names, sorted.
func (x *index) files() []string { return slices.Compact(slices.Sorted(maps.Values(x.file))) }

// unindexed returns the weight file of a folder with neither model.safetensors
// nor an index.
func unindexed(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") && filepath.Ext(name) == ".safetensors" && !isAdapter(name) {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 1:
		return found, nil
	case 0:
		return nil, strange(dir, fmt.Errorf("%s: no %s, no %s and no other safetensors file in it", dir, singleName, indexName))
	}
	return nil, fmt.Errorf("%s: %d safetensors files (%s, …) and no %s to say which hold the model", dir, len(found), found[0], indexName)
}

const adapterConfig = "adapter_config.json"

// isAdapter reports whether a weight file is by its name a PEFT adapter's.
func isAdapter(name string) bool { return strings.HasPrefix(name, "adapter_model") }

// strange returns err, or where dir is something that people take for a model
// in safetensors, an error that says what it is and what to do.
func strange(dir string, err error) error {
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return err
	}
	has := func(match func(name string) bool) string {
		for _, e := range entries {
			if match(e.Name()) {
				return e.Name()
			}
		}
		return ""
	}
	ending := func(ext string) func(string) bool {
		return func(name string) bool { return strings.EqualFold(filepath.Ext(name), ext) }
	}
	switch {
	case has(func(n string) bool { return n == adapterConfig || isAdapter(n) }) != "":
		base := "its base model"
		if text, err := regular.Read(filepath.Join(dir, adapterConfig), maxConfig); err == nil {
			var c struct {
				Base string `json:"base_model_name_or_path"`
			}
			if json.Unmarshal(text, &c) == nil && c.Base != "" {
				base = fmt.Sprintf("its base model %.100q", c.Base)
			}
		}
		return fmt.Errorf("%s: an adapter (LoRA or the like), which holds only what is added to %s: "+
			"merge the two first, with peft's merge_and_unload, and give the merged model", dir, base)
	case has(func(n string) bool { return ending(".bin")(n) && strings.HasPrefix(n, "pytorch_model") }) != "":
		return fmt.Errorf("%s: weights in pytorch_model*.bin, want safetensors; convert them with\n"+
			`  python -c "import sys; from transformers import AutoModelForCausalLM as M; M.from_pretrained(sys.argv[1], dtype='auto').save_pretrained(sys.argv[2])" %s %s-safetensors`+
			"\nand copy the tokenizer's files beside", dir, dir, filepath.Clean(dir))
	}
	for _, f := range []struct{ ext, what string }{
		{".gguf", "llama.cpp's format: give the file itself as the model"},
		{".bin", "PyTorch's format: get or save the model in safetensors"},
		{".pth", "PyTorch's format: get the model in Hugging Face format, in safetensors"},
		{".pt", "PyTorch's format: get or save the model in safetensors"},
		{".h5", "TensorFlow's format: get or save the model in safetensors"},
		{".msgpack", "Flax's format: get or save the model in safetensors"},
		{".onnx", "an ONNX graph: get the model that it was made from, in safetensors"},
		{".npz", "MLX's old format: get the model that it was made from, in safetensors"},
	} {
		if name := has(ending(f.ext)); name != "" {
			return fmt.Errorf("%w, but %.100q, which is in %s", err, name, f.what)
		}
	}
	if has(func(n string) bool { return n == configName }) == "" {
		var folders []string
		for _, e := range entries {
			if _, err := os.Stat(filepath.Join(dir, e.Name(), configName)); err == nil {
				folders = append(folders, e.Name())
			}
		}
		if len(folders) > 0 {
			return fmt.Errorf("%w, but there is one in its folder %.100q", err, folders[0])
		}
		if has(func(n string) bool { return n == "snapshots" }) != "" {
			return fmt.Errorf("%w, but the hub's cache of one: give the model's id, or a folder in its folder \"snapshots\"", err)
		}
	}
	return err
}

// compareIndexed warns if, beside the model.safetensors that is read, an index
// names a second whole set of its tensors that may have other contents: by a slip of
// saving twice, the one that is read may not be the one that is meant.
func (inv *Inventory) compareIndexed() error {
	x, err := readIndex(filepath.Join(inv.dir, indexName))
	if err != nil || x == nil || inv.files[0].name != singleName {
		return nil // nothing reads the index
	}
	inv.listed = x.file
	other := &Inventory{dir: inv.dir, byName: map[string]int{}, metaKeys: map[string]bool{}}
	defer other.Close()
	for _, name := range x.files() {
		if name == singleName || other.addFile(name, true) != nil {
			return nil // not whole
		}
	}
	for _, t := range inv.tensors {
		if _, ok := other.Tensor(t.Name); !ok {
			return nil
		}
	}
	whole := inv.WeightBytes() <= comparedWhole
	differs, err := inv.differs(other, whole)
	switch {
	case err != nil:
		return err
	case differs != "":
		inv.warn("%s and the %d files of %s hold two different models (%s differs): %s is read, as transformers reads it; remove the other",
			singleName, len(other.files), indexName, differs, singleName)
	case !whole:
		inv.warn("%s and the %d files of %s hold two models, which are alike where they were compared (the beginning, middle and end of each tensor): %s is read, as transformers reads it; remove the other",
			singleName, len(other.files), indexName, singleName)
	}
	return nil
}

// Two sets of up to comparedWhole bytes are compared whole, which takes a fraction of
// a second, and larger ones by comparedBytes at three places of each tensor.
const (
	comparedWhole = 256 << 20
	comparedBytes = 64 << 10
)

// differs returns the first tensor of inv, or else of other, that the two have not
// alike; "" if there is none.
func (inv *Inventory) differs(other *Inventory, whole bool) (string, error) {
	for _, t := range inv.tensors {
		o, _ := other.Tensor(t.Name)
		if t.DType != o.DType || !slices.Equal(t.Shape, o.Shape) {
			return t.Name, nil
		}
		n := min(t.Size, comparedBytes)
		places := []int64{0, (t.Size - n) / 2, t.Size - n}
		if whole {
			places = nil
			for at := int64(0); at < t.Size; at += n {
				places = append(places, min(at, t.Size-n))
			}
		}
		a, b := make([]byte, n), make([]byte, n)
		for _, at := range places {
			if err := errors.Join(inv.ReadAt(t, a, at), other.ReadAt(o, b, at)); err != nil {
				return "", err
			}
			if !bytes.Equal(a, b) {
				return t.Name, nil
			}
		}
	}
	for _, o := range other.tensors {
		if _, ok := inv.Tensor(o.Name); !ok {
			return o.Name, nil
		}
	}
	return "", nil
}

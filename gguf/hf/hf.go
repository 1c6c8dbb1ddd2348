package hf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/gguf"
)

// Ext is the ending of a GGUF file's name.
const Ext = ".gguf"

// IsGGUF reports whether path is called like a GGUF file.
func IsGGUF(path string) bool { return strings.EqualFold(filepath.Ext(path), Ext) }

// OpenModel opens a model in either form: a GGUF file, or a Hugging Face folder.
func OpenModel(path string) (*checkpoint.Inventory, error) {
	if IsGGUF(path) {
		return Open(path)
	}
	return checkpoint.Open(path)
}

// Open reads the head of the GGUF file at path, and of its other splits if it
// is the first of several, and returns the inventory of the folder that it
// stands for.
func Open(path string) (*checkpoint.Inventory, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	m, err := newModel(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return checkpoint.FromSource(m)
}

// model is a GGUF file as the source of an inventory.
type model struct {
	file    *gguf.File
	files   map[string][]byte
	tensors []checkpoint.Tensor
	views   map[string]view // by name
}

func newModel(f *gguf.File) (*model, error) {
	k := newKeys(f)
	name, err := f.Metadata.Text("general.architecture")
	if err != nil {
		return nil, err
	}
	a, err := findArchitecture("architecture", name, func(a *architecture) string { return a.name })
	if err != nil {
		return nil, err
	}
	k.arch = a.name
	c := readConfig(k, a)
	t := readTokenizer(k, a)
	k.leftOver()
	if k.err != nil {
		return nil, k.err
	}
	m := &model{file: f, files: t.files(), views: map[string]view{}}
	m.files["config.json"] = encodeJSON(c)
	return m, m.addTensors(a, c)
}

func (m *model) Path() string                 { return m.file.Path() }
func (m *model) Files() map[string][]byte     { return m.files }
func (m *model) Tensors() []checkpoint.Tensor { return m.tensors }
func (m *model) Stored() []*os.File           { return m.file.Files() }
func (m *model) Close() error                 { return m.file.Close() }

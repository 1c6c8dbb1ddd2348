package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/hub"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/session"
)

// shelf is where a worker finds models by their hash.
type shelf struct {
	*app
	dirs []string
	hash map[string]string // of what was read, by path
	have map[string]string // what opens a model, by hash
}

// holds returns nil if the model is here, or can be fetched from the hub.
func (s *shelf) holds(ctx context.Context, w search.Weights) error {
	if _, ok := s.have[w.ID]; ok {
		return nil
	}
	for _, dir := range s.dirs {
		for _, path := range modelsIn(dir) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if s.is(path, w) {
				s.have[w.ID] = path
				return nil
			}
		}
	}
	// Never a folder by an ordered name: only what --models names is shown to others.
	name := w.Name
	if name != session.Demo {
		if _, err := hub.ParseRepo(name); err != nil || strings.HasPrefix(name, ".") {
			return s.lacks(w, "it is not in --models, and its name is not one of the hub")
		}
		if _, err := os.Stat(name); err == nil {
			return s.lacks(w, "it is not in --models; a folder of that name is not looked into")
		}
	}
	dir, err := session.Locate(ctx, name, s.options("", 0).Hub())
	s.meter.finish()
	if err != nil {
		return s.lacks(w, err.Error())
	}
	if !s.is(dir, w) {
		return s.lacks(w, fmt.Sprintf("%s has other weights here", name))
	}
	s.have[w.ID] = dir
	return nil
}

func (s *shelf) lacks(w search.Weights, why string) error {
	return fmt.Errorf("model %s with hash %s: %s", w.Name, w.ID, why)
}

// is reports whether the model at path has these weights. What has another size, or
// is none, is not hashed.
func (s *shelf) is(path string, w search.Weights) bool {
	if h, ok := s.hash[path]; ok {
		return h == w.ID
	}
	inv, err := hf.OpenModel(path)
	if err != nil {
		return false
	}
	defer inv.Close()
	if inv.WeightBytes() != w.Bytes {
		return false
	}
	h, err := digestOf(inv)
	if err != nil {
		return false
	}
	s.hash[path] = h
	return h == w.ID
}

// modelsIn lists what may be a model: dir itself, and what lies one or two levels below
// it, "org/name".
func modelsIn(dir string) []string {
	var all []string
	for _, pattern := range []string{"config.json", "*/config.json", "*/*/config.json"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range found {
			all = append(all, filepath.Dir(path))
		}
	}
	for _, pattern := range []string{"*.gguf", "*/*.gguf", "*/*/*.gguf"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		all = append(all, found...)
	}
	return all
}

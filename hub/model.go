package hub

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/regular"
)

// ModelFiles is a want function for Snapshot: the files at the top of a model
// repository but for weights in formats other than safetensors and Mistral's
// consolidated copy of the weights.
func ModelFiles(path string) bool {
	if strings.Contains(path, "/") || strings.HasPrefix(path, "consolidated") {
		return false
	}
	return !slices.Contains(otherFormats, strings.ToLower(filepath.Ext(path))) && !strings.HasSuffix(path, ".bin.index.json")
}

// otherFormats are the endings of files with weights, or of archives.
var otherFormats = []string{
	".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".onnx", ".h5", ".msgpack",
	".tflite", ".ot", ".mlmodel", ".nemo", ".zip", ".tar", ".gz",
}

// checkWeights refuses a repository without weights in safetensors, whose files
// are given in order, and says what it holds in their place.
func checkWeights(files []string) error {
	isWeights := func(path string) bool { return ModelFiles(path) && strings.HasSuffix(path, ".safetensors") }
	if slices.ContainsFunc(files, isWeights) {
		return nil
	}
	for _, path := range files {
		if ext := strings.ToLower(filepath.Ext(path)); slices.Contains(otherFormats, ext) || strings.HasSuffix(path, ".safetensors") {
			return fmt.Errorf("no weights in safetensors at its top, but in %s: take a repository, or a revision, that has them (refs/pr/… of the hub's own conversion), "+
				"or convert them with transformers' save_pretrained", path)
		}
	}
	return fmt.Errorf("no weights in it")
}

// maxIndex bounds the index that missingFile reads; a real one is below 10 MB.
const maxIndex = 100_000_000 // bytes

// missingFile returns the first file that a model in dir must have and has not, ""
// if there is none.
func missingFile(dir string) string {
	const config, single, index = "config.json", "model.safetensors", "model.safetensors.index.json"
	has := func(name string) bool { return exists(filepath.Join(dir, name)) }
	if !has(config) {
		return config
	}
	if has(single) {
		return ""
	}
	text, err := regular.Read(filepath.Join(dir, index), maxIndex)
	if err != nil {
		if found, err := filepath.Glob(filepath.Join(dir, "*.safetensors")); err == nil && len(found) > 0 {
			return ""
		}
		return single
	}
	var x struct {
		Files map[string]string `json:"weight_map"`
	}
	if json.Unmarshal(text, &x) != nil {
		return "" // for whoever opens it to say
	}
	for _, name := range slices.Sorted(maps.Values(x.Files)) {
		if safePath(name) && !has(name) {
			return name
		}
	}
	return ""
}

package checkpoint

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/regular"
)

// AuxFile is a file that goes to the output byte for byte.
type AuxFile struct {
	Path string // relative to the folder, with slashes
	Size int64  // bytes
}

// LeftOut is a file or folder of the input that does not go to the output.
type LeftOut struct {
	Path   string // relative to the folder, with slashes; a folder's ends in one
	Reason string
}

// HoldsWeights reports whether l is left out because it may hold weights of the
// model once more.
func (l LeftOut) HoldsWeights() bool { return l.Reason == reasonCopy || l.Reason == reasonTensors }

// The reasons for leaving something out.
const (
	reasonHidden   = "hidden"
	reasonCopy     = "the dense weights in another format, or a training state"
	reasonTensors  = "a second copy of the dense weights"
	reasonLink     = "a link to a folder"
	reasonLeads    = "a link that leads out of the model's folder"
	reasonManifest = "of an earlier run; this one writes its own"
	reasonNotAFile = "not a regular file"
)

// copyExts are the endings of files that hold weights in other formats, or
// what a training run saves beside them. A pruned model's folder must not hold
// the dense weights again: a loader might prefer them.
var copyExts = map[string]bool{
	".bin": true, ".pt": true, ".pth": true, ".ckpt": true, ".gguf": true, ".ggml": true,
	".h5": true, ".msgpack": true, ".ot": true, ".npz": true, ".tflite": true,
	".mlmodel": true, ".pdparams": true,
}

// findAux sorts everything in the folder that is not a weight file of the
// checkpoint into what goes to the output and what does not.
func (inv *Inventory) findAux() error {
	own := map[string]bool{indexName: true}
	for _, f := range inv.files {
		own[f.name] = true
	}
	root, err := filepath.EvalSymlinks(inv.dir) // WalkDir would not enter a link
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil || rel == "." || own[rel] {
			return err
		}
		return inv.sortAux(filepath.ToSlash(rel), root, e)
	})
}

// belongs reports whether path, with links followed, lies in the model's folder
// root, or among the blobs that a snapshot of the hub's cache links to:
//
//	models--org--name/snapshots/<revision>/config.json → ../../blobs/<hash>
//
// A link to anywhere else would copy what the model's author, not its user, chose.
func belongs(path, root string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil || inside(real, root) {
		return err == nil
	}
	snapshots := filepath.Dir(root)
	repo := filepath.Dir(snapshots)
	return filepath.Base(snapshots) == "snapshots" && strings.HasPrefix(filepath.Base(repo), "models--") &&
		inside(real, filepath.Join(repo, "blobs"))
}

func (inv *Inventory) sortAux(rel, root string, e fs.DirEntry) error {
	name := filepath.Join(root, filepath.FromSlash(rel))
	leave := func(reason string) { inv.leftOut = append(inv.leftOut, LeftOut{rel, reason}) }
	whole := "" // why it is left out with all that is in it
	switch {
	case strings.HasPrefix(e.Name(), "."):
		whole = reasonHidden
	case slices.Contains([]string{ManifestName, MeasuresName, PackRecordName, RotationRecordName}, rel):
		whole = reasonManifest
	}
	switch {
	case whole != "" && e.IsDir():
		rel += "/"
		leave(whole)
		return fs.SkipDir
	case whole != "":
		leave(whole)
		return nil
	case e.IsDir():
		return nil
	}
	if isWeightCopy(e.Name()) {
		leave(reasonCopy)
		return nil
	}
	st, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("%s: a link to a file that is missing: download it again", name)
	}
	switch {
	case st.IsDir():
		rel += "/"
		leave(reasonLink)
	case !st.Mode().IsRegular():
		leave(reasonNotAFile)
	case rel != configName && !belongs(name, root): // config.json has been read, and is one
		leave(reasonLeads)
	case path.Ext(rel) == ".safetensors" && inv.repeats(name):
		leave(reasonTensors)
	default:
		inv.aux = append(inv.aux, AuxFile{rel, st.Size()})
	}
	return nil
}

// isWeightCopy reports whether a file's name says that it holds weights in
// another format than the checkpoint's, or is the index of such files.
func isWeightCopy(name string) bool {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "consolidated.") {
		return true // the layout of Meta's and Mistral's own code
	}
	ext := path.Ext(strings.TrimSuffix(name, ".index.json"))
	return copyExts[ext] || strings.HasPrefix(ext, ".onnx")
}

// repeats reports whether a safetensors file that is not of the checkpoint
// holds a tensor of the same name. Some loaders read every safetensors file of
// a folder and would take the dense one. Adapters and the like have names of
// their own.
func (inv *Inventory) repeats(name string) bool {
	f, size, err := regular.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	h, err := readHeader(f, size)
	if err != nil {
		return false // not ours to judge: carried as it is
	}
	for _, t := range h.tensors {
		if _, ok := inv.byName[t.Name]; ok {
			return true
		}
	}
	return false
}

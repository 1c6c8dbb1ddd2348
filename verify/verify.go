// Package verify checks a folder that crepe wrote against its manifest, and against
// the dense model that it was made from.
//
// It derives which weights must be zero from the recipe and the model's shapes, not
// from the driver: a check that asked the driver would repeat its mistakes.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pack"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// Finding is one difference from what the manifest or the dense model says.
type Finding struct {
	Where string `json:"where"` // a file, a tensor or a field of crepe.json
	What  string `json:"what"`
}

// String is the finding in a line.
func (f Finding) String() string { return f.Where + ": " + f.What }

// Result says what was checked, and what was found.
type Result struct {
	Findings []Finding `json:"findings"` // none: everything is as the manifest says

	Tensors int `json:"tensors"` // of the folder
	Linears int `json:"linears"` // pruned ones
	Weights int `json:"weights"` // of these
	Zeros   int `json:"zeros"`   // of these, counted

	Files    int  `json:"files"`    // whose hash was compared; 0: the manifest has none
	Compared bool `json:"compared"` // with the dense model
}

// Options say what a folder is checked against besides its manifest.
type Options struct {
	Dense    *checkpoint.Inventory // the model that was pruned; nil: not compared
	Progress progress.Func
}

// verifier is one check at work.
type verifier struct {
	Options
	dir      string
	manifest *prune.Manifest
	resolved recipe.Resolved
	inv      *checkpoint.Inventory
	m        *model.Model
	record   *pack.Record // of a packed folder, else nil
	bar      *progress.Bar
	result   Result
}

// Folder checks the output folder dir of a run:
//
//   - files: the SHA-256 of config and weights as the manifest has them (of a packed
//     folder: as the record of the packing has them, and the manifest those of the plain
//     folder that was packed), and no weights in another format beside them;
//   - every Linear: as many zeros as the manifest says; pruned ones at least as many
//     as the recipe asks for, in each group of N:M (in the recorded order of the
//     columns), each row or the whole, part by part where fused matrices were split;
//   - the total sparsity, and each block's share where it was allocated.
//
// With the dense model besides:
//
//   - its files have the hashes that the manifest has of the inputs;
//   - tensors have its names, types and shapes, and what is not pruned its bytes;
//   - unless an update changed them, weights that are not zero are its weights, and
//     no group has more zeros that the dense model has not than the recipe asks for;
//   - the other files of its folder are there, byte for byte.
//
// Of a model that was rotated before it was pruned, names, types, shapes and files are
// compared: its weights are none of the dense model's.
//
// Of a folder packed as integers, Linears may have more zeros than the manifest says, and
// no matrix that is integers is compared with the dense model's.
//
// It is an error if dir is no model or has no manifest.
func Folder(ctx context.Context, dir string, o Options) (*Result, error) {
	v := &verifier{Options: o, dir: dir}
	var err error
	if v.manifest, err = readManifest(dir); err != nil {
		return nil, err
	}
	if v.resolved, err = v.manifest.Recipe.Resolve(); err != nil {
		return nil, fmt.Errorf("%s: recipe: %w", filepath.Join(dir, prune.ManifestName), err)
	}
	if v.inv, err = checkpoint.Open(dir); err != nil {
		return nil, err
	}
	defer v.inv.Close()
	if v.m, err = model.Open(v.inv, model.Options{Engine: cpu.New(engine.F32)}); err != nil {
		return nil, err
	}
	v.result.Findings, v.result.Tensors = []Finding{}, len(v.inv.Tensors())
	if err := v.checkFiles(ctx); err != nil {
		return nil, err
	}
	if err := v.checkLinears(ctx); err != nil {
		return nil, err
	}
	if o.Dense != nil {
		v.result.Compared = true
		if err := v.compareOthers(ctx); err != nil {
			return nil, err
		}
	}
	return &v.result, nil
}

func readManifest(dir string) (*prune.Manifest, error) {
	m, err := prune.ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no %s in it: not a folder that crepe prune wrote", dir, prune.ManifestName)
	}
	return m, err
}

// found notes a finding.
func (v *verifier) found(where, format string, args ...any) {
	v.result.Findings = append(v.result.Findings, Finding{where, fmt.Sprintf(format, args...)})
}

// foundInManifest notes that a field of the manifest is not what it has to be.
func (v *verifier) foundInManifest(field, format string, args ...any) {
	v.found(prune.ManifestName+", "+field, format, args...)
}

// checkFiles holds the hashes of the manifest against those of the files. Weights
// beside those of the checkpoint are none that a run has written: some loaders would
// prefer them.
func (v *verifier) checkFiles(ctx context.Context) error {
	for _, l := range v.inv.LeftOut() {
		if l.HoldsWeights() {
			v.found(l.Path, "%s: not written by crepe", l.Reason)
		}
	}
	if err := v.readRecord(); err != nil {
		return err
	}
	if len(v.manifest.Files) > 0 {
		hashes, err := v.hashes(ctx, v.inv, "hash the output")
		if err != nil {
			return err
		}
		v.result.Files = len(hashes)
		if v.record == nil {
			v.compareHashes(prune.ManifestName+", files", "", v.manifest.Files, hashes)
		} else {
			v.compareHashes(checkpoint.PackRecordName+", files", "", v.record.Files, hashes)
		}
	}
	if v.Dense == nil {
		return nil
	}
	hashes, err := v.hashes(ctx, v.Dense, "hash the dense model")
	if err != nil {
		return err
	}
	v.compareHashes(prune.ManifestName+", inputs", " of the dense model", v.manifest.Inputs, hashes)
	return nil
}

// readRecord reads what a packed folder says of the packing, and holds the plain
// folder that it names to the manifest.
func (v *verifier) readRecord() error {
	r, err := pack.ReadRecord(v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	v.record = r
	for _, name := range slices.Sorted(maps.Keys(r.Plain)) {
		if want, listed := v.manifest.Files[name]; listed && want != r.Plain[name] {
			v.found(checkpoint.PackRecordName+", plain", "%s had SHA-256 %s when it was packed, %s has %s", name, short(r.Plain[name]), prune.ManifestName, short(want))
		}
	}
	return nil
}

// rounded reports whether the folder's weights became integers: some may be zero now
// that were not, and they are no longer the dense model's.
func (v *verifier) rounded() bool { return v.record != nil && v.record.Rounded() }

func (v *verifier) hashes(ctx context.Context, inv *checkpoint.Inventory, name string) (map[string]string, error) {
	hashes, err := inv.Hashes(v.Progress.Bytes(name))
	if err == nil {
		err = ctx.Err()
	}
	return hashes, err
}

// compareHashes reports where files have other hashes than a field of crepe.json or of
// the record of a packing; whose follows their names.
func (v *verifier) compareHashes(field, whose string, want, got map[string]string) {
	names := maps.Clone(want)
	maps.Copy(names, got)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch {
		case want[name] == got[name]:
		case got[name] == "":
			v.found(field, "%s%s is listed, and not there", name, whose)
		case want[name] == "":
			v.found(field, "%s%s is there, and not listed", name, whose)
		default:
			v.found(field, "%s%s has SHA-256 %s, want %s", name, whose, short(got[name]), short(want[name]))
		}
	}
}

// short is enough of a hash to tell it from another.
func short(hash string) string {
	const digits = 16
	if len(hash) > digits {
		return hash[:digits] + "…"
	}
	return hash
}

package prune

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/rotate/rotated"
	"github.com/crepe-llm/crepe/windows"
)

// ManifestName is the file in an output folder that says how it was made.
const ManifestName = checkpoint.ManifestName

// Manifest is the content of crepe.json. It holds nothing that differs between
// two runs of the same program, engine, inputs and recipe: no times, no paths.
type Manifest struct {
	Crepe   string              `json:"crepe"`             // version
	Program *provenance.Program `json:"program,omitempty"` // nil: made by a crepe that did not note it
	Engine  string              `json:"engine,omitempty"`  // the ID of what computed; empty like Program

	Provenance string `json:"provenance,omitempty"` // the key of all that the output depends on; empty like Program

	// Level is the instruction level; Engine says it too.
	Level   string `json:"kernels"`
	Compute string `json:"compute"`

	Recipe   recipe.Recipe     `json:"recipe"`
	Inputs   map[string]string `json:"inputs"`          // SHA-256 of config and weight files
	Files    map[string]string `json:"files,omitempty"` // the same of the output's
	Sparsity Sparsity          `json:"sparsity"`

	Calibration *Text `json:"calibration,omitempty"`
	Evaluation  *Text `json:"evaluation,omitempty"`

	Dense  *eval.Result `json:"dense,omitempty"`
	Pruned *eval.Result `json:"pruned,omitempty"`

	Diverged *eval.Divergence `json:"diverged,omitempty"` // as in Report

	Linears []LinearReport `json:"linears,omitempty"`

	Rotation   *rotated.Result `json:"rotation,omitempty"`
	Allocation *Allocation     `json:"allocation,omitempty"`
}

// Text is what was calibrated or measured on, as it came out: a recipe's
// window may be longer than the model takes.
type Text struct {
	Source  string `json:"source"`
	Windows int    `json:"windows"`
	SeqLen  int    `json:"seqlen"`
	BOS     bool   `json:"bos"`
	SHA256  string `json:"sha256"` // of the token ids
}

func newText(s *windows.Set) *Text {
	if s == nil {
		return nil
	}
	return &Text{Source: s.Source, Windows: len(s.Tokens), SeqLen: s.SeqLen, BOS: s.BOS, SHA256: s.SHA256()}
}

// commit completes the report from the journal, writes manifest and recipe and
// puts the output in its place.
func (r *runner) commit(ctx context.Context, hashes map[string]string) error {
	defer timed(&r.report.Seconds.Write)()
	if err := r.collect(); err != nil {
		return err
	}
	rep := r.report
	used := r.plan.used(r.opt)
	used.Compute = r.m.Engine().Compute().String() // what "auto" came to
	program, err := provenance.This()
	if err != nil {
		return err
	}
	manifest := Manifest{
		Crepe: program.Version, Program: &program, Engine: r.m.Engine().ID(), Provenance: r.depends.Key(),
		Level: cpu.Current().String(), Compute: r.m.Engine().Compute().String(), Recipe: used, Inputs: hashes,
		Sparsity: rep.Sparsity, Dense: rep.Dense, Pruned: rep.Pruned, Diverged: rep.Diverged, Linears: rep.Linears,
		Rotation: rep.Rotation, Allocation: rep.Allocation,
		Evaluation: newText(r.opt.Evaluation),
	}
	if r.plan.resolved.Method.NeedsData {
		manifest.Calibration = newText(r.opt.Calibration)
	}
	if manifest.Files, err = r.hashOutput(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	measures, err := json.Marshal(Measures{Version: MeasuresVersion, Provenance: manifest.Provenance, Linears: r.measures})
	if err != nil {
		return err
	}
	if err := writeRecipe(rep.Recipe, used); err != nil {
		return err
	}
	r.trim() // an open file among what Commit removes would stop it on Windows
	files := map[string][]byte{ManifestName: append(text, '\n'), MeasuresName: append(measures, '\n')}
	if r.opt.Pack != nil {
		return r.w.CommitMade(files, func(dir string) error { return r.pack(ctx, dir) })
	}
	return r.w.Commit(files)
}

// asked returns the recipe with its defaults, and without what has no part in
// the run.
func (p *Plan) asked(opt Options) recipe.Recipe {
	r := opt.Recipe.WithDefaults()
	if !p.resolved.Method.NeedsData {
		r.Calibration = recipe.Calibration{}
	}
	if opt.Evaluation == nil {
		r.Eval = recipe.Eval{Source: "none"}
	}
	return r
}

// used returns the recipe as it is carried out: what was asked for, with the
// windows that there are, which may be shorter or fewer.
func (p *Plan) used(opt Options) recipe.Recipe {
	r := p.asked(opt)
	if c := opt.Calibration; c != nil && p.resolved.Method.NeedsData {
		r.Calibration.Source = cmp.Or(r.Calibration.Source, c.Source)
		r.Calibration.Samples, r.Calibration.SeqLen = len(c.Tokens), c.SeqLen
	}
	if e := opt.Evaluation; e != nil {
		r.Eval.Source = cmp.Or(r.Eval.Source, e.Source)
		r.Eval.SeqLen, r.Eval.Windows = e.SeqLen, len(e.Tokens)
	}
	return r
}

func writeRecipe(path string, used recipe.Recipe) error {
	text, err := used.YAML()
	if err != nil {
		return err
	}
	return fsys.WriteFile(path, text)
}

// ReadManifest returns the manifest of an output folder; without one it is
// fs.ErrNotExist.
func ReadManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	if st, err := os.Stat(path); err == nil && st.IsDir() { // no crepe made that
		return nil, fmt.Errorf("%s: a folder: %w", path, fs.ErrNotExist)
	}
	text, err := regular.Read(path, checkpoint.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// maxObjects bounds the objects of a manifest: two characters of text can be one, of
// a hundred bytes of memory. A model with 60,000 Linears has three for each at most.
const maxObjects = 1 << 20

func parseManifest(text []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := parse(text, m); err != nil {
		return nil, err
	}
	return m, nil
}

// parse reads into v what a run has written, unless it has more than maxObjects.
func parse(text []byte, v any) error {
	if n := bytes.Count(text, []byte("{")); n > maxObjects {
		return fmt.Errorf("%d objects, want at most %d: not that of a run", n, maxObjects)
	}
	return pyjson.Record(text, v)
}

// finished reports whether the output is there already, by an equal run.
func (r *runner) finished() bool {
	m, err := ReadManifest(r.opt.Output)
	return err == nil && m.Provenance == r.depends.Key()
}

// recall completes the report of a finished output from its manifest.
func (r *runner) recall() error {
	m, err := ReadManifest(r.opt.Output)
	if err != nil {
		return err
	}
	rep := r.report
	if rep.Packed, err = r.packed(); err != nil {
		return err
	}
	rep.Finished = true
	rep.Diverged = m.Diverged
	rep.Sparsity, rep.Dense, rep.Pruned, rep.Linears, rep.Allocation, rep.Rotation = m.Sparsity, m.Dense, m.Pruned, m.Linears, m.Allocation, m.Rotation
	// The recipe beside a finished output says what the output was made by. Between its
	// last record and its renaming, an interrupted search has written its own there.
	if was, err := recipe.Read(rep.Recipe); err == nil && was.Equal(m.Recipe) {
		return nil
	}
	return writeRecipe(rep.Recipe, m.Recipe)
}

// collect takes what the steps have noted into the report.
func (r *runner) collect() error {
	rep := r.report
	for b := range r.m.Blocks() {
		var done blockDone
		if err := r.w.Info(stepBlock(b), &done); err != nil {
			return err
		}
		rep.Linears = append(rep.Linears, done.Linears...)
		r.measures = append(r.measures, done.Measures...)
	}
	rep.Sparsity.Measured = measured(rep.Linears)
	if a := r.plan.resolved.Allocate; a != nil {
		rep.Allocation = &Allocation{Method: a.Name, Blocks: r.shares.blocks}
	}
	if r.opt.Evaluation == nil {
		return nil
	}
	rep.Dense, rep.Pruned = new(eval.Result), new(eval.Result)
	if err := r.w.Info(stepDense, rep.Dense); err != nil {
		return err
	}
	if err := r.w.Info(stepPruned, rep.Pruned); err != nil {
		return err
	}
	return r.w.Info(stepDiverged, &rep.Diverged)
}

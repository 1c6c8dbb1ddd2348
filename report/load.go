package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/grid"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/search/store"
)

// Item is one result that was saved: exactly one of the pointers below is set.
type Item struct {
	Path string // as it was named
	Name string // for people; no two Items of a Document have the same

	Run      *Run
	History  *pho.History // of a search or a study of proxies
	Grid     []grid.SavedCell
	Points   []grid.SavedPoint // of the frontier of a Grid
	Table    *grid.Report      // of crepe compare --format json
	Eval     *Evaluation
	Texts    *Texts
	Masks    *MaskDifference
	Pattern  string // of a History
	UnderWay bool   // what there is may not be all
}

// Run is a pruned folder, or one that is being made.
type Run struct {
	Manifest *prune.Manifest // nil while it is being made
	Measures *prune.Measures // nil: an older crepe's
	Record   *prune.Record   // nil if it is not beside the folder
	Bytes    int64           // of the folder's weights
	UnderWay *prune.UnderWay // nil once it is finished
}

// Evaluation is what crepe eval --json prints.
type Evaluation struct {
	Model   string `json:"model"`
	Compute string `json:"compute"`
	Data    string `json:"data"`
	eval.Result
	Against *Comparison `json:"against"`
	Tasks   *struct {
		Results []task.Result `json:"results"`
	} `json:"tasks"`
}

// Comparison is a model beside another.
type Comparison struct {
	Name string `json:"name"`
	eval.Comparison
}

// Texts is what crepe generate --json prints.
type Texts struct {
	Prompt string `json:"prompt"`
	Continuation
	Against *Continuation `json:"against"`
	Same    *int          `json:"same_tokens"`
}

// Continuation is one model's text.
type Continuation struct {
	Model string  `json:"model"`
	Text  string  `json:"text"`
	IDs   []int32 `json:"ids"`
}

// MaskDifference is what crepe inspect --against --json prints.
type MaskDifference struct {
	Model   string             `json:"model"`
	Against *MaskTotal         `json:"against"`
	Linears []LinearDifference `json:"linears"`
}

// MaskTotal is the difference over all Linears.
type MaskTotal struct {
	Model string `json:"model"` // the other
	Difference
}

// LinearDifference is that of one; nil if it was not compared.
type LinearDifference struct {
	Name string `json:"name"`
	*Difference
}

// Difference compares the zeros of two weights: shares of their number.
type Difference struct {
	Equal     float64 `json:"equal"`
	OnlyThis  float64 `json:"zero_in_this_only"`
	OnlyOther float64 `json:"zero_in_other_only"`
}

// maxResult bounds a JSON file of results: a grid of thousands of cells has a few MB.
const maxResult = 64 << 20 // bytes

// maxObjects bounds its objects: two characters of text can be one, of hundreds of
// bytes of memory.
const maxObjects = 1 << 20

// Load reads the results at paths: folders that crepe prune wrote or is writing, files
// of searches, studies and grids, and what eval, generate, inspect --against and
// compare print with --json.
func Load(ctx context.Context, paths []string) ([]Item, error) {
	all, err := loadEach(ctx, paths)
	if err != nil {
		return nil, err
	}
	Rename(all)
	return all, nil
}

// loadEach is Load before names are told apart.
func loadEach(ctx context.Context, paths []string) ([]Item, error) {
	var all []Item
	for _, path := range paths {
		items, err := load(ctx, path)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
	}
	return all, nil
}

func load(ctx context.Context, path string) ([]Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if output, ok := checkpoint.PartialOf(path); ok {
		return loadUnderWay(output)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		items, err := loadUnderWay(path)
		if errors.Is(err, checkpoint.ErrNoPartial) {
			err = fmt.Errorf("%s: no such file or folder", path)
		}
		return items, err
	case err != nil:
		return nil, err
	case st.IsDir():
		items, err := loadFolder(path)
		if errors.Is(err, errNotARun) {
			return loadAll(ctx, path)
		}
		return items, err
	}
	head, err := firstBytes(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("SQLite format 3\x00")) {
		return loadStudies(ctx, path)
	}
	return loadJSON(path)
}

var errNotARun = errors.New("not a folder that crepe prune wrote")

// loadAll reads all results that lie in a folder.
func loadAll(ctx context.Context, dir string) ([]Item, error) {
	paths, err := Find(dir)
	if err != nil {
		return nil, err
	}
	all, err := loadEach(ctx, paths)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no %s in it, and no result: not a folder that crepe prune wrote", dir, prune.ManifestName)
	}
	return all, nil
}

// mostFound bounds the results of one folder.
const mostFound = 1000

// Find returns the paths of the results that lie in a folder itself: those that Load
// reads, by their names and what is in them. A folder that is a result is the only
// one.
func Find(dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, prune.ManifestName)); err == nil {
		return []string{dir}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !found(path, e.IsDir()) {
			continue
		}
		if len(paths) == mostFound {
			return nil, fmt.Errorf("%s: more than %d results, want a folder of fewer", dir, mostFound)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// found reports whether path looks like a result.
func found(path string, folder bool) bool {
	there := func(name string) bool {
		st, err := os.Stat(filepath.Join(path, name))
		return err == nil && st.Mode().IsRegular()
	}
	if folder {
		if output, ok := checkpoint.PartialOf(path); ok {
			_, err := checkpoint.Peek(output)
			return err == nil
		}
		return there(prune.ManifestName)
	}
	switch filepath.Ext(path) {
	case ".study":
		return true
	case ".json":
		st, err := os.Stat(path)
		if err != nil || !st.Mode().IsRegular() || st.Size() > maxFound {
			return false
		}
		text, err := regular.Read(path, maxFound)
		return err == nil && kindOf(text) != ""
	}
	return false
}

// maxFound bounds the JSON files that are read to see what they are.
const maxFound = 16 << 20 // bytes

func firstBytes(path string) ([]byte, error) {
	f, _, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 16)
	n, _ := f.Read(head)
	return head[:n], nil
}

// loadFolder reads a pruned folder.
func loadFolder(path string) ([]Item, error) {
	m, err := prune.ReadManifest(path)
	if errors.Is(err, fs.ErrNotExist) {
		items, other := loadUnderWay(path)
		if errors.Is(other, checkpoint.ErrNoPartial) {
			return nil, errNotARun
		}
		return items, other
	}
	if err != nil {
		return nil, err
	}
	run := &Run{Manifest: m}
	if run.Measures, err = prune.ReadMeasures(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if run.Measures != nil && run.Measures.Provenance != m.Provenance {
		return nil, fmt.Errorf("%s: of another run than %s", filepath.Join(path, prune.MeasuresName), prune.ManifestName)
	}
	if run.Record, err = prune.ReadRecord(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if run.Record != nil && run.Record.Provenance != m.Provenance { // of a run that this one has replaced
		run.Record = nil
	}
	for name := range m.Files {
		if st, err := os.Stat(filepath.Join(path, filepath.Base(name))); err == nil && strings.HasSuffix(name, ".safetensors") {
			run.Bytes += st.Size()
		}
	}
	return []Item{{Path: path, Name: base(path), Run: run}}, nil
}

// loadUnderWay reads what a run has done that makes the folder at output.
func loadUnderWay(output string) ([]Item, error) {
	u, err := prune.ReadUnderWay(output)
	if err != nil {
		return nil, err
	}
	return []Item{{Path: output, Name: base(output), Run: &Run{UnderWay: u}, UnderWay: true}}, nil
}

// loadStudies reads all that a file of studies holds.
func loadStudies(ctx context.Context, path string) ([]Item, error) {
	all, err := store.Read(ctx, path)
	if err != nil {
		return nil, err
	}
	var items []Item
	for _, s := range all {
		item := Item{Path: path, Name: strings.TrimSuffix(base(path), ".study")}
		cells, err := grid.ReadCells(&s)
		if err != nil {
			return nil, fmt.Errorf("%s: study %s: %w", path, s.Name, err)
		}
		if len(cells) > 0 {
			item.Grid = cells
			if item.Points, err = grid.ReadPoints(&s); err != nil {
				return nil, fmt.Errorf("%s: study %s: %w", path, s.Name, err)
			}
			items = append(items, item)
			continue
		}
		if item.History, err = pho.ReadHistory(&s); err != nil {
			return nil, fmt.Errorf("%s: study %s: %w", path, s.Name, err)
		}
		item.Pattern = s.Provenance.Value("pattern")
		if len(all) > 1 {
			item.Name += ", " + s.Name + " " + item.Pattern
		}
		if h := item.History; len(h.Trials)+len(h.Checked)+len(h.Configs) > 0 {
			items = append(items, item)
		}
	}
	return items, nil
}

// loadJSON reads what a command printed with --json.
func loadJSON(path string) ([]Item, error) {
	text, err := regular.Read(path, maxResult)
	if err != nil {
		return nil, err
	}
	item, err := parseResult(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	item.Path, item.Name = path, strings.TrimSuffix(base(path), ".json")
	return []Item{item}, nil
}

// parseResult reads what a command printed, whichever it was.
func parseResult(text []byte) (item Item, err error) {
	if n := bytes.Count(text, []byte("{")); n > maxObjects {
		return item, fmt.Errorf("%d objects, want at most %d: no result", n, maxObjects)
	}
	switch kindOf(text) {
	case "compare":
		err = json.Unmarshal(text, &item.Table)
	case "generate":
		err = json.Unmarshal(text, &item.Texts)
	case "inspect":
		err = json.Unmarshal(text, &item.Masks)
	case "eval":
		err = json.Unmarshal(text, &item.Eval)
	default:
		err = errors.New("want a folder of crepe prune, a file of studies, or what eval, generate, inspect --against or compare print with --json")
	}
	return item, pyjson.Plain(err)
}

// kindOf returns the command that prints such JSON; empty for other text.
func kindOf(text []byte) string {
	var keys map[string]json.RawMessage
	if json.Unmarshal(text, &keys) != nil {
		return ""
	}
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { _, ok := keys[n]; return !ok })
	}
	switch {
	case has("methods", "patterns", "models"):
		return "compare"
	case has("prompt", "text"):
		return "generate"
	case has("linears", "against"):
		return "inspect"
	case has("model", "compute") && (has("perplexity") || has("tasks")):
		return "eval"
	}
	return ""
}

// base is the last element of a path, of "." as well.
func base(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return filepath.Base(path)
}

// State says how far i is, for people.
func (i *Item) State() string {
	switch {
	case i.Run != nil && i.UnderWay:
		return fmt.Sprintf("at work or interrupted, blocks pruned: %d", i.Run.UnderWay.Blocks)
	case i.Run != nil:
		return "finished run"
	case i.Grid != nil:
		return fmt.Sprintf("grid, cells: %d", len(i.Grid))
	case i.Table != nil:
		return "grid"
	case i.History != nil && i.History.Configs != nil:
		return fmt.Sprintf("study, configurations: %d", len(i.History.Configs))
	case i.History != nil && i.History.Stage2 == nil:
		return fmt.Sprintf("search, trials: %d", len(i.History.Trials))
	case i.History != nil && i.History.Stage2.Over:
		return "finished search"
	case i.History != nil:
		return fmt.Sprintf("search, trials: %d, steps of stage 2: %d", len(i.History.Trials), len(i.History.Stage2.Steps))
	case i.Texts != nil:
		return "texts"
	case i.Masks != nil:
		return "two masks"
	}
	return "evaluation"
}

// Rename gives Items of the same name their paths, or numbers.
func Rename(all []Item) {
	count := map[string]int{}
	for _, i := range all {
		count[i.Name]++
	}
	for i := range all {
		if count[all[i].Name] > 1 && all[i].Name != all[i].Path {
			all[i].Name += " (" + all[i].Path + ")"
		}
	}
	seen := map[string]int{}
	for i := range all {
		name := all[i].Name
		if seen[name]++; seen[name] > 1 {
			all[i].Name = fmt.Sprintf("%s, %d", name, seen[name])
		}
	}
}

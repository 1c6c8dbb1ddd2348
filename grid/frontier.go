package grid

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pack"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/tensor"
)

// A frontier has every cell of a grid, the dense model among them, once for each kind of
// stored values: the folder that crepe pack makes of it is measured for its size, its
// speed beside the dense model's, and what it says.

// How speed is measured; tests take less.
var (
	racePrompt = 64 // tokens, at most
	raceTokens = 64 // that follow
	raceRuns   = 5  // of which the fastest counts
)

// divergenceWindows are the first of the text's, at most.
const divergenceWindows = 16

// Point is a model of a frontier.
type Point struct {
	Method     string      `json:"method"` // Dense for the model as it came
	Pattern    string      `json:"pattern,omitempty"`
	Values     string      `json:"values"`       // bf16 (the weights' own type, whatever that is), int8 or int4
	Bytes      int64       `json:"stored_bytes"` // of all tensors, in files
	Decode     float64     `json:"decode"`       // tokens a second, after a prompt
	Dense      float64     `json:"dense_decode"` // of the dense model, as it came, in the same race
	Perplexity eval.Result `json:"perplexity"`
	KL         eval.Number `json:"kl"` // mean, nats from the dense model, on the first windows; infinite: one of the two has no finite likelihood

	// Frontier says that no other point of the model dominates it.
	Frontier bool `json:"frontier"`
	Kept     bool `json:"kept,omitempty"` // all of it was in the store
}

// Ratio is the speed next to the dense model's.
func (p *Point) Ratio() float64 { return p.Decode / p.Dense }

// Name is "dense" or "crepe at 50%".
func (p *Point) Name() string {
	if p.Method == Dense {
		return Dense
	}
	return p.Method + " at " + p.Pattern
}

// dominates reports whether p is at least as good as q in size, speed and divergence, and
// better in one. Speeds are next to the dense model's, which ran in turn with each: so
// what else the machine did while one of them ran takes no part.
func (p *Point) dominates(q *Point) bool {
	kl := func(p *Point) float64 {
		if p.KL.Infinite() {
			return math.Inf(1)
		}
		return float64(p.KL)
	}
	notWorse := p.Bytes <= q.Bytes && p.Ratio() >= q.Ratio() && kl(p) <= kl(q)
	return notWorse && (p.Bytes < q.Bytes || p.Ratio() > q.Ratio() || kl(p) < kl(q))
}

// Rank sorts points by size and marks those that no other dominates.
func Rank(points []Point) {
	slices.SortStableFunc(points, func(a, b Point) int { return cmp.Compare(a.Bytes, b.Bytes) })
	for i := range points {
		points[i].Frontier = !slices.ContainsFunc(points, func(q Point) bool { return q.dominates(&points[i]) })
	}
}

// The kinds of a frontier's records. A speed's key has more than its point's: the number
// of threads.
const (
	pointKind = "point" // value: stored
	speedKind = "speed" // value: raced
)

// stored is what is kept of a point, but for its speed.
type stored struct {
	origin
	Values string      `json:"values"`
	Bytes  int64       `json:"stored_bytes"`
	Result eval.Result `json:"result"`
	KL     eval.Number `json:"kl"`
}

func (s *stored) valid() bool {
	return s.Bytes > 0 && s.Result.Valid() && (s.KL > -1e-3 && s.KL <= eval.MaxNLL || s.KL.Infinite())
}

// raced is what is kept of its speed.
type raced struct {
	origin
	Point  string  `json:"point"` // its key
	Decode float64 `json:"decode"`
	Dense  float64 `json:"dense_decode"`
}

func (r *raced) valid() bool {
	return r.Decode > 0 && r.Dense > 0 && !math.IsInf(r.Decode, 0) && !math.IsInf(r.Dense, 0)
}

// frontier measures a cell's model with every kind of values; open makes it, if anything
// is lacking. What is packed lies in folder meanwhile.
func (g *runner) frontier(ctx context.Context, c *Cell, from origin, folder string, open func() (*Model, func(), error)) error {
	if !g.opt.Frontier {
		return nil
	}
	var plain *Model
	done := func() {}
	defer func() { done() }()
	for _, v := range pack.Values {
		p := Point{Method: c.Method, Pattern: c.Pattern, Values: v.Name}
		err := g.point(ctx, &p, c, from, v.Integers, filepath.Join(folder, v.Name), func() (*Model, error) {
			var err error
			if plain == nil {
				plain, done, err = open()
			}
			if err != nil {
				done = func() {}
			}
			return plain, err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
		g.points = append(g.points, p)
		if g.opt.Point != nil {
			g.opt.Point(p)
		}
	}
	return nil
}

// point fills in p, of the cell c with values of k; folder is where it is packed.
func (g *runner) point(ctx context.Context, p *Point, c *Cell, from origin, k tensor.Integers, folder string, open func() (*Model, error)) error {
	windows := g.Evaluation.Tokens[:min(len(g.Evaluation.Tokens), divergenceWindows)]
	rec := slices.Clone(from.Provenance)
	rec = append(rec, provenance.Record{
		{Name: "values", Value: fmt.Sprintf("%s, %d columns to a scale", p.Values, k.Group)},
		{Name: "windows divergence", Value: strconv.Itoa(len(windows))},
	}...)
	prompt := g.Evaluation.Tokens[0]
	prompt = prompt[:min(len(prompt), racePrompt, max(1, g.M.Config.MaxPositions-raceTokens))]
	race := append(slices.Clone(rec), provenance.Record{
		{Name: "threads", Value: strconv.Itoa(runtime.GOMAXPROCS(0))},
		{Name: "race", Value: fmt.Sprintf("%d runs, prompt %d, tokens %d", raceRuns, len(prompt), raceTokens)},
	}...)
	is := stored{origin: origin{from.What, rec}, Values: p.Values}
	runs := raced{origin: origin{from.What, race}, Point: key(rec)}
	if err := cmp.Or(g.dropOne(ctx, pointKind, key(rec)), g.dropOne(ctx, speedKind, key(race))); err != nil {
		return err
	}
	known, err := get(g, pointKind, key(rec), &is)
	if err != nil {
		return err
	}
	timed, err := get(g, speedKind, key(race), &runs)
	if err != nil {
		return err
	}
	if p.Kept = known && timed; !p.Kept {
		plain, err := open()
		if err != nil {
			return err
		}
		m, done, err := g.packed(ctx, plain, k, folder)
		if err != nil {
			return err
		}
		defer done()
		if !known {
			if err := g.say(ctx, m, c, windows, &is); err != nil {
				return err
			}
			if err := g.put(ctx, pointKind, key(rec), is); err != nil {
				return err
			}
		}
		if !timed {
			if runs.Decode, runs.Dense, err = g.race(ctx, m, prompt); err != nil {
				return err
			}
			if err := g.put(ctx, speedKind, key(race), runs); err != nil {
				return err
			}
		}
		done()
		if err := fsys.RemoveAll(folder); err != nil {
			return err
		}
	}
	p.Bytes, p.Perplexity, p.KL, p.Decode, p.Dense = is.Bytes, is.Result, is.KL, runs.Decode, runs.Dense
	return nil
}

// dropOne forgets one record, if it is to be measured again.
func (g *runner) dropOne(ctx context.Context, kind, key string) error {
	if !g.opt.Again || g.fresh[key] {
		return nil
	}
	delete(g.kept[kind], key)
	return g.study.Remove(ctx, kind, key)
}

// packed writes plain to folder with values of k and opens that. Where nothing would be
// smaller so, as of the dense model in its own type, it is plain itself. done may be called
// twice.
func (g *runner) packed(ctx context.Context, plain *Model, k tensor.Integers, folder string) (m *Model, done func(), err error) {
	if err := cmp.Or(fsys.MkdirAll(filepath.Dir(folder), 0o777), fsys.OwnDir(filepath.Dir(folder))); err != nil {
		return nil, nil, err
	}
	_, err = pack.Folder(ctx, plain.Inv, plain.M, pack.Options{Integers: k, Output: folder, Overwrite: true, Progress: g.opt.Progress})
	switch {
	case errors.Is(err, pack.ErrNotSmaller):
		return plain, func() {}, nil
	case err != nil:
		return nil, nil, err
	}
	return g.open(folder)
}

// open opens a folder that a cell has written.
func (g *runner) open(dir string) (*Model, func(), error) {
	inv, err := checkpoint.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	m, err := model.Open(inv, model.Options{Engine: g.M.Engine()})
	if err != nil {
		inv.Close()
		return nil, nil, err
	}
	opened := g.Model
	opened.Inv, opened.M, opened.Dir = inv, m, dir
	return &opened, func() { inv.Close() }, nil
}

// say measures size, perplexity and divergence of m. Values that are the weights
// themselves have the cell's perplexity.
func (g *runner) say(ctx context.Context, m *Model, c *Cell, windows [][]int32, into *stored) error {
	into.Bytes = m.Inv.StoredBytes()
	fitted := *m
	fitted.M = g.within(m.M)
	into.Result = *c.Perplexity
	if form := pack.FormOf(m.Inv); form != nil && form.Bits > 0 {
		var err error
		if into.Result, err = g.perplexity(ctx, &fitted); err != nil {
			return err
		}
	}
	opt := eval.Options{Name: "compare with the dense model", Progress: g.opt.Progress}
	opt.States = eval.PlaceFor(fitted.M, len(windows), g.Evaluation.SeqLen, 2, g.budget, filepath.Dir(g.opt.Scratch))
	apart, err := eval.Against(ctx, fitted.M, g.within(g.M), windows, opt)
	var not *eval.NotFiniteError
	switch {
	case errors.As(err, &not):
		into.KL = eval.Number(math.Inf(1))
	case err != nil:
		return err
	default:
		into.KL = eval.Number(apart.KL.Mean)
	}
	return nil
}

// race returns the tokens a second of m and of the dense model, which run in turn.
func (g *runner) race(ctx context.Context, m *Model, prompt []int32) (decode, dense float64, err error) {
	var models []*session.Session
	for _, dir := range []string{m.Dir, g.Dir} {
		if len(models) > 0 && dir == m.Dir { // the dense model itself
			break
		}
		s, err := session.Open(ctx, dir, session.Options{Engine: g.M.Engine(), Memory: g.opt.Memory, Progress: g.opt.Progress})
		if err != nil {
			return 0, 0, err
		}
		defer s.Close()
		models = append(models, s)
	}
	speeds, err := session.Race(ctx, models, prompt, raceTokens, raceRuns)
	if err != nil {
		return 0, 0, err
	}
	return speeds[0].Decode, speeds[len(speeds)-1].Decode, nil
}

// SavedPoint is a point as a store holds it.
type SavedPoint struct {
	Model string
	Point
}

// ReadPoints returns the finished points of a study in the order in which they were
// measured. Of several speeds of one, as with other numbers of threads, the last counts.
func ReadPoints(s *search.Saved) ([]SavedPoint, error) {
	var points []SavedPoint
	at := map[string]int{}
	for _, r := range s.Records {
		if r.Kind != pointKind {
			continue
		}
		var v stored
		if err := json.Unmarshal([]byte(r.Value), &v); err != nil || !v.valid() {
			return nil, fmt.Errorf("%s %s is %.100q, want a measured one", r.Kind, r.Key, r.Value)
		}
		p := SavedPoint{Point: Point{Values: v.Values, Bytes: v.Bytes, Perplexity: v.Result, KL: v.KL}}
		p.Model, p.Method, p.Pattern = parseWhat(v.What)
		at[r.Key] = len(points)
		points = append(points, p)
	}
	for _, r := range s.Records {
		if r.Kind != speedKind {
			continue
		}
		var v raced
		if err := json.Unmarshal([]byte(r.Value), &v); err != nil || !v.valid() {
			return nil, fmt.Errorf("%s %s is %.100q, want a measured one", r.Kind, r.Key, r.Value)
		}
		if i, ok := at[v.Point]; ok {
			points[i].Decode, points[i].Dense = v.Decode, v.Dense
		}
	}
	return slices.DeleteFunc(points, func(p SavedPoint) bool { return p.Decode == 0 }), nil // interrupted
}

// frontierTable writes the points of m, the smallest first.
func (m *ModelReport) frontierTable(b *strings.Builder) {
	rows := [][]string{{"model", "values", "size", "of dense", "tokens/s", "of dense", "perplexity", "KL", "frontier"}}
	dense := m.Frontier[len(m.Frontier)-1].Bytes
	for _, p := range m.Frontier {
		if p.Method == Dense && p.Values == pack.Values[0].Name {
			dense = p.Bytes
		}
	}
	for _, p := range m.Frontier {
		mark := ""
		if p.Frontier {
			mark = "●"
		}
		rows = append(rows, []string{
			p.Name(), p.Values, megabytes(p.Bytes), fmt.Sprintf("%.3f", float64(p.Bytes)/float64(dense)),
			fmt.Sprintf("%.4g", p.Decode), fmt.Sprintf("%.2f", p.Ratio()), perplexity(Cell{Perplexity: &p.Perplexity}), p.KL.Text(4), mark,
		})
	}
	table(b, rows)
	fmt.Fprintf(b, "Tokens a second are of %d that follow a prompt, on this machine; the ratio is to the dense model, which ran in turn with each. KL divergence is from the dense model, in nats on the first %d windows. ●: no other row is at least as good in size, ratio of speed and KL, and better in one.\n\n",
		raceTokens, min(m.Windows, divergenceWindows))
}

func megabytes(n int64) string {
	if n >= 1e10 {
		return fmt.Sprintf("%.4g GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.4g MB", float64(n)/1e6)
}

// frontierLines are those of csv, one for every point.
func (r *Report) frontierLines() [][]string {
	lines := [][]string{{"model", "method", "pattern", "values", "stored_bytes", "decode", "dense_decode", "perplexity", "kl", "frontier"}}
	for _, m := range r.Models {
		for _, p := range m.Frontier {
			lines = append(lines, []string{
				m.Model, p.Method, p.Pattern, p.Values, strconv.FormatInt(p.Bytes, 10), number(p.Decode), number(p.Dense),
				number(float64(p.Perplexity.Perplexity)), number(float64(p.KL)), strconv.FormatBool(p.Frontier),
			})
		}
	}
	return lines
}

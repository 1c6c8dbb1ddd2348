// Package recipe describes a pruning run but for its model: what a run writes
// beside its output, and what repeats it or carries it to another model.
package recipe

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/permute"
	"github.com/crepe-llm/crepe/rebuild"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/rotate"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/update"
)

// Version is the format this package writes and the newest it reads.
const Version = 1

// The defaults of the literature's protocol.
const (
	DefaultMethod   = "crepe"
	DefaultSparsity = "50%"
	DefaultSamples  = 128
	DefaultSeqLen   = 2048
	DefaultCompute  = "auto"
	DefaultFused    = "whole"
)

// The most that a recipe may ask for, far above what anybody does, and small
// enough that no product of them overflows.
const (
	MaxSamples = 1 << 18
	MaxSeqLen  = 1 << 24 // tokens; a model whose maximum is smaller gets its maximum
	MaxWindows = 1 << 20
)

// Recipe is everything about a run but the model, the output and the machine.
// The zero value of a field means its default.
type Recipe struct {
	Version int `yaml:"version" json:"version"`

	// What does the work, by the names of the packages' methods. Empty, but for
	// Method: nothing does.
	Method   string `yaml:"method" json:"method"`                         // score or update: which weights go
	Rotate   string `yaml:"rotate,omitempty" json:"rotate,omitempty"`     // the directions in which weights are seen
	Allocate string `yaml:"allocate,omitempty" json:"allocate,omitempty"` // the blocks' shares of Sparsity
	Permute  string `yaml:"permute,omitempty" json:"permute,omitempty"`   // the order of the columns in N:M's groups
	Refine   string `yaml:"refine,omitempty" json:"refine,omitempty"`     // exchanges what the method prunes and keeps
	Update   string `yaml:"update,omitempty" json:"update,omitempty"`     // changes what the method keeps
	Rebuild  string `yaml:"rebuild,omitempty" json:"rebuild,omitempty"`   // then optimises what several Linears keep together

	// Kinds are parameters of Method that differ for a kind of Linear, which is named
	// by the last part of its name, "q_proj".
	Kinds map[string]param.Values `yaml:"kinds,omitempty" json:"kinds,omitempty"`

	// Params are the parameters of these methods, in a file keys of their own
	// beside the others. One that is not there has its default.
	Params param.Values `yaml:",inline" json:"-"`

	Sparsity string `yaml:"sparsity,omitempty" json:"sparsity,omitempty"` // "50%" or "0.5"; with Pattern empty
	Pattern  string `yaml:"pattern,omitempty" json:"pattern,omitempty"`   // "2:4"
	Compare  string `yaml:"compare,omitempty" json:"compare,omitempty"`   // "matrix" or "row"; empty: the method's own
	Fused    string `yaml:"fused,omitempty" json:"fused,omitempty"`       // "whole" or "split": fused matrices are scored as one, or part by part
	Skip     string `yaml:"skip,omitempty" json:"skip,omitempty"`         // regexp of Linears left dense

	Calibration Calibration `yaml:"calibration,omitempty" json:"calibration,omitzero"` // of no use to a method that needs no data
	Eval        Eval        `yaml:"eval" json:"eval"`
	Compute     string      `yaml:"compute,omitempty" json:"compute,omitempty"` // "f32", "bf16" or "auto"
}

// Calibration says which text the activations come from.
type Calibration struct {
	Source  string `yaml:"source" json:"source"`
	Samples int    `yaml:"samples" json:"samples"` // sequences
	SeqLen  int    `yaml:"seqlen" json:"seqlen"`   // tokens a sequence; a model whose maximum is smaller gets its maximum
	Seed    int64  `yaml:"seed" json:"seed"`
}

// Eval says what perplexity is measured on.
type Eval struct {
	Source  string `yaml:"source" json:"source"`                       // "none": not measured
	SeqLen  int    `yaml:"seqlen,omitempty" json:"seqlen,omitempty"`   // tokens a window
	Windows int    `yaml:"windows,omitempty" json:"windows,omitempty"` // the first so many; 0: all
}

// Equal reports whether both say the same, defaults filled in. A recipe that
// was carried out says what "auto" came to.
func (r Recipe) Equal(o Recipe) bool {
	r, o = r.WithDefaults(), o.WithDefaults()
	if r.Compute == DefaultCompute || o.Compute == DefaultCompute {
		r.Compute, o.Compute = "", ""
	}
	return reflect.DeepEqual(r, o)
}

// Read reads a recipe file, or the built-in recipe that "builtin:NAME" names. Unknown
// keys are errors, so that a misspelt one is not a silent default.
func Read(path string) (Recipe, error) {
	if name, ok := strings.CutPrefix(path, BuiltinPrefix); ok {
		return readBuiltin(name)
	}
	data, err := regular.Read(path, maxBytes)
	if err != nil {
		return Recipe{}, err
	}
	r, err := Parse(data)
	if err != nil {
		return Recipe{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// maxBytes bounds a recipe file: it is a page of text.
const maxBytes = 1 << 20

// Parse reads a recipe and checks it.
func Parse(data []byte) (Recipe, error) {
	if len(data) > maxBytes {
		return Recipe{}, fmt.Errorf("recipe of %d bytes, want at most %d", len(data), maxBytes)
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return Recipe{}, plain(err)
	}
	if err := refuseLarge(&tree); err != nil {
		return Recipe{}, err
	}
	if err := refuseKeys(&tree); err != nil {
		return Recipe{}, err
	}
	var r Recipe
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&r); err != nil {
		if errors.Is(err, io.EOF) {
			return Recipe{}, errors.New("empty recipe")
		}
		return Recipe{}, plain(err)
	}
	if err := refuseFractions(&tree); err != nil {
		return Recipe{}, err
	}
	if err := refuseUnknown(&tree); err != nil {
		return Recipe{}, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Recipe{}, errors.New("more than one YAML document, want one recipe")
	}
	r.normalize()
	if r.Version < 1 || r.Version > Version {
		return Recipe{}, fmt.Errorf("version: %d, want %d", r.Version, Version)
	}
	if _, err := r.Resolve(); err != nil {
		return Recipe{}, err
	}
	return r, nil
}

// maxFields bounds the fields of an object: the decoder compares each with all others.
const maxFields = 1024

// refuseLarge returns an error if an object has more than maxFields.
func refuseLarge(n *yaml.Node) error {
	if fields := len(n.Content) / 2; n.Kind == yaml.MappingNode && fields > maxFields {
		return fmt.Errorf("line %d: %d fields, want at most %d", n.Line, fields, maxFields)
	}
	for _, child := range n.Content {
		if err := refuseLarge(child); err != nil {
			return err
		}
	}
	return nil
}

// refuseKeys returns an error if a key is no text. The decoder leaves out one that is
// null, with its value.
func refuseKeys(n *yaml.Node) error {
	for i, child := range n.Content {
		key := child
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if n.Kind == yaml.MappingNode && i%2 == 0 && key.ShortTag() != "!!str" && key.ShortTag() != "!!merge" {
			return fmt.Errorf("line %d: %s for a key, want a text", child.Line, called(key.Kind, child.Value))
		}
		if err := refuseKeys(child); err != nil {
			return err
		}
	}
	return nil
}

// called is what an error calls a value.
func called(kind yaml.Kind, text string) string {
	switch {
	case kind == yaml.SequenceNode:
		return "a list"
	case kind == yaml.MappingNode:
		return "fields"
	case text == "":
		return "nothing"
	}
	return "`" + text + "`"
}

// wholeNumbers are the keys of fields that are int.
var wholeNumbers = []string{"version", "samples", "seqlen", "seed", "windows"}

// refuseFractions returns an error if a whole number is given as a fraction, of
// which the decoder would take the whole part.
func refuseFractions(n *yaml.Node) error {
	for i, child := range n.Content {
		if err := refuseFractions(child); err != nil {
			return err
		}
		if n.Kind != yaml.MappingNode || i%2 == 0 || child.ShortTag() != "!!float" || !slices.Contains(wholeNumbers, n.Content[i-1].Value) {
			continue
		}
		var v float64
		if err := child.Decode(&v); err != nil {
			return plain(err)
		}
		if v != math.Trunc(v) {
			return fmt.Errorf("%s: %s, want a whole number", n.Content[i-1].Value, child.Value)
		}
	}
	return nil
}

// refuseUnknown returns an error if the recipe has a key that is no field and no
// parameter, which the decoder would take for one.
func refuseUnknown(doc *yaml.Node) error {
	known := map[string]bool{}
	for _, p := range Parameters() {
		known[p.Name] = true
	}
	for f := range reflect.TypeFor[Recipe]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		known[name] = true
	}
	for i, n := range doc.Content[0].Content {
		if i%2 == 0 && !known[n.Value] && n.Value != "<<" {
			return fmt.Errorf("line %d: unknown field %q", n.Line, n.Value)
		}
	}
	return nil
}

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
	wrongType    = regexp.MustCompile("cannot unmarshal !!(\\w+)(?: (`[^`]*`))? into (\\S+)")
)

// plain is a YAML error in one line and in the words of a recipe's writer.
func plain(err error) error {
	var many *yaml.TypeError
	if !errors.As(err, &many) {
		return err
	}
	text := unknownField.ReplaceAllString(strings.Join(many.Errors, "; "), `unknown field "$1"`)
	return errors.New(wrongType.ReplaceAllStringFunc(text, func(s string) string {
		m := wrongType.FindStringSubmatch(s)
		want := "fields of its own"
		switch kind := strings.TrimLeft(m[3], "*"); {
		case strings.HasPrefix(kind, "int"):
			want = "a whole number"
		case strings.HasPrefix(kind, "float"):
			want = "a number"
		case kind == "string":
			want = "a text"
		case kind == "bool":
			want = "true or false"
		}
		return cmp.Or(m[2], map[string]string{"seq": "a list", "map": "fields"}[m[1]], "nothing") + ", want " + want
	}))
}

// YAML returns the recipe as Read takes it.
func (r Recipe) YAML() ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("# crepe recipe: crepe prune MODEL --recipe FILE\n")
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(r), enc.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Resolved is a checked recipe in the types that the work is done with.
type Resolved struct {
	Method   score.Method            // Score is nil where Update selects; NeedsData counts what the others need
	Rotate   *rotate.Method          // nil: the model is pruned in the directions it came in
	Allocate *allocate.Method        // nil: every block gets Target
	Permute  *permute.Method         // nil: columns stay in their order
	Refine   *refine.Method          // nil: the mask stays as it was selected
	Update   *update.Method          // nil: what is kept stays as it is
	Rebuild  *rebuild.Method         // nil: the same
	Params   param.Values            // of all of these
	Kinds    map[string]param.Values // in their place for a kind of Linear, see ParamsOf
	Fit      fit.Options             // what Refine and Update fit to
	Target   pattern.Target          // of the whole
	Observes bool                    // pruning a block needs what its inputs see

	Split bool           // score and select each part of a fused matrix by itself
	Skip  *regexp.Regexp // nil: nothing is skipped
}

// Rewrites reports whether kept weights change.
func (r Resolved) Rewrites() bool { return r.Update != nil || r.Rebuild != nil || r.Fit.Dense }

// Dense reports whether the dense model's hidden states are needed beside the pruned
// ones.
func (r Resolved) Dense() bool { return r.Fit.Dense || r.Rebuild != nil }

// InOrder reports whether the branches of a block are pruned one after the other.
func (r Resolved) InOrder() bool { return r.Fit.InOrder() || r.Rebuild != nil }

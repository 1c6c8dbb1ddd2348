package tokenizer

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/crepe-llm/crepe/internal/onig"
)

func unsupported(kind, typ, known string) error {
	if typ == "" {
		return fmt.Errorf("%s without a type; supported: %s", kind, known)
	}
	return fmt.Errorf("%s type %.60q is not supported; supported: %s", kind, typ, known)
}

func (c *component) normalizer() (normalizer, error) {
	if c == nil {
		return nil, nil
	}
	if form, ok := normalForms[c.Type]; ok {
		return normalForm(form), nil
	}
	switch c.Type {
	case "Sequence":
		return c.normalizers()
	case "Lowercase":
		return eachTime(lowercase), nil
	case "Prepend":
		return eachTime(func(s string) string {
			if s == "" {
				return s
			}
			return c.Prepend + s
		}), nil
	case "Replace":
		m, err := c.Pattern.matcher()
		if err != nil {
			return nil, fmt.Errorf("normalizer Replace: %w", err)
		}
		return func(b *budget, s string, first bool) (string, bool, error) {
			out, begins, err := replaceAll(b, s, m, c.Content)
			return out, first && begins, err
		}, nil
	case "Strip":
		return func(_ *budget, s string, first bool) (string, bool, error) {
			out := s
			if c.StripLeft {
				out = strings.TrimLeftFunc(s, unicode.IsSpace)
			}
			first = first && len(out) == len(s)
			if c.StripRight {
				out = strings.TrimRightFunc(out, unicode.IsSpace)
			}
			return out, first, nil
		}, nil
	}
	return nil, unsupported("normalizer", c.Type,
		"NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, Sequence")
}

func (c *component) normalizers() (normalizer, error) {
	var steps []normalizer
	for i := range c.Normalizers {
		n, err := c.Normalizers[i].normalizer()
		if err != nil {
			return nil, err
		}
		steps = append(steps, n)
	}
	return func(b *budget, s string, first bool) (string, bool, error) {
		var err error
		for _, n := range steps {
			if s, first, err = n(b, s, first); err != nil {
				return s, first, err
			}
		}
		return s, first, nil
	}, nil
}

// stages appends the pre-tokenizer's stages to dst.
func (c *component) stages(dst []stage) ([]stage, error) {
	if c == nil {
		return dst, nil
	}
	switch c.Type {
	case "Sequence":
		var err error
		for i := range c.Pretokenizers {
			if dst, err = c.Pretokenizers[i].stages(dst); err != nil {
				return nil, err
			}
		}
		return dst, nil
	case "ByteLevel":
		return append(dst, byteLevel{
			prefixSpace: c.AddPrefixSpace != nil && *c.AddPrefixSpace,
			cut:         c.UseRegex == nil || *c.UseRegex,
			stand:       true,
		}), nil
	case "Split":
		m, err := c.Pattern.matcher()
		if err != nil {
			return nil, fmt.Errorf("pre_tokenizer Split: %w", err)
		}
		b, err := c.behavior()
		return append(dst, split{pattern: m, behavior: b, invert: c.Invert}), err
	case "Digits":
		b := contiguous
		if c.IndividualDigits {
			b = isolated
		}
		return append(dst, split{pattern: matcher{finder: oneOf(numeric)}, behavior: b}), nil
	case "Metaspace":
		m, err := c.metaspace()
		return append(dst, m), err
	case "Whitespace": // \w+|[^\w\s]+
		return append(dst, split{pattern: matcher{finder: scanner(scanWords)}, behavior: removed, invert: true}), nil
	case "WhitespaceSplit":
		return append(dst, split{pattern: matcher{finder: oneOf(space)}, behavior: removed}), nil
	case "Punctuation":
		b := isolated
		var err error
		if c.Behavior != "" {
			b, err = c.behavior()
		}
		return append(dst, split{pattern: matcher{finder: oneOf(delimit)}, behavior: b}), err
	}
	return nil, unsupported("pre_tokenizer", c.Type,
		"ByteLevel, Digits, Metaspace, Punctuation, Split, Whitespace, WhitespaceSplit, Sequence")
}

var behaviors = map[string]behavior{
	"Isolated": isolated, "Removed": removed, "MergedWithPrevious": mergedWithPrevious,
	"MergedWithNext": mergedWithNext, "Contiguous": contiguous,
}

func (c *component) behavior() (behavior, error) {
	b, ok := behaviors[c.Behavior]
	if !ok {
		return 0, fmt.Errorf("pre_tokenizer %s: behavior %.60q, want Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous", c.Type, c.Behavior)
	}
	return b, nil
}

func (c *component) metaspace() (metaspace, error) {
	m := metaspace{replacement: c.Replacement, cut: c.Split == nil || *c.Split}
	if utf8.RuneCountInString(c.Replacement) != 1 {
		return m, fmt.Errorf("metaspace: replacement %.60q, want one character", c.Replacement)
	}
	switch c.PrependScheme {
	case "", "always":
		m.prepend = prependAlways
	case "first":
		m.prepend = prependFirst
	case "never":
		m.prepend = prependNever
	default:
		return m, fmt.Errorf("metaspace: prepend_scheme %.60q, want always, first or never", c.PrependScheme)
	}
	if c.AddPrefixSpace != nil && !*c.AddPrefixSpace { // from before prepend_scheme
		if c.PrependScheme != "" && m.prepend != prependNever {
			return m, fmt.Errorf("metaspace: add_prefix_space false, but prepend_scheme %.60q", c.PrependScheme)
		}
		m.prepend = prependNever
	}
	return m, nil
}

// matcher returns what finds the pattern.
func (p *pattern) matcher() (matcher, error) {
	if p == nil || p.String == nil && p.Regex == nil {
		return matcher{}, fmt.Errorf("no pattern; want String or Regex")
	}
	if p.String != nil && *p.String != "" {
		return matcher{finder: literal(*p.String)}, nil
	}
	re := ""
	if p.Regex != nil {
		re = *p.Regex
	}
	if scan, ok := patterns[re]; ok {
		return matcher{finder: scan}, nil
	}
	if re == trailingPattern {
		return matcher{finder: trailingSpaces{}}, nil
	}
	if re != "" && regexp.QuoteMeta(re) == re {
		return matcher{finder: literal(re)}, nil
	}
	engine, err := onig.Compile(re)
	if err != nil {
		return matcher{}, fmt.Errorf("pattern %.100q: %w", re, err)
	}
	if run := engine.Run(); run != nil {
		return matcher{finder: runFinder{run}}, nil
	}
	return matcher{engine: engine}, nil
}

// templatePart is a part of the post-processor's result: the text's ids, or
// those of a special token.
type templatePart struct {
	sequence bool
	ids      []int32
}

// template returns the post-processor's parts, nil where it adds nothing.
func (c *component) template() ([]templatePart, error) {
	if c == nil {
		return nil, nil
	}
	switch c.Type {
	case "ByteLevel": // changes offsets, not ids
		return nil, nil
	case "Sequence":
		var parts []templatePart
		for i := range c.Processors {
			p, err := c.Processors[i].template()
			if err != nil {
				return nil, err
			}
			if p != nil && parts != nil {
				return nil, fmt.Errorf("post_processor Sequence: two steps TemplateProcessing, want at most one")
			}
			if p != nil {
				parts = p
			}
		}
		return parts, nil
	case "TemplateProcessing":
		return c.templateParts()
	}
	return nil, unsupported("post_processor", c.Type, "ByteLevel, TemplateProcessing, Sequence")
}

func (c *component) templateParts() ([]templatePart, error) {
	parts := []templatePart{}
	sequences, ids := 0, 0
	for _, p := range c.Single {
		switch {
		case p.Sequence != nil && p.Sequence.ID == "A":
			if sequences++; sequences > maxSequences {
				return nil, fmt.Errorf("post_processor: a template with Sequence A more than %d times is not supported", maxSequences)
			}
			parts = append(parts, templatePart{sequence: true})
		case p.SpecialToken != nil:
			tok, ok := c.SpecialTokens[p.SpecialToken.ID]
			if !ok {
				return nil, fmt.Errorf("post_processor: special token %.60q is not among special_tokens", p.SpecialToken.ID)
			}
			if ids += len(tok.IDs); ids > maxPieces {
				return nil, fmt.Errorf("post_processor: a template that adds more than %d ids is not supported", maxPieces)
			}
			part := templatePart{}
			for _, id := range tok.IDs {
				if id < 0 || id > math.MaxInt32 {
					return nil, fmt.Errorf("post_processor: special token %.60q: id %d, want 0 to %d", p.SpecialToken.ID, id, math.MaxInt32)
				}
				part.ids = append(part.ids, int32(id))
			}
			parts = append(parts, part)
		default:
			return nil, fmt.Errorf("post_processor: template single: want pieces that are SpecialToken or Sequence A")
		}
	}
	return parts, nil
}

func (c *component) decoder() (decoder, error) {
	if c == nil {
		return nil, nil
	}
	switch c.Type {
	case "Sequence":
		var steps []decoder
		for i := range c.Decoders {
			d, err := c.Decoders[i].decoder()
			if err != nil {
				return nil, err
			}
			steps = append(steps, d)
		}
		return func(b *budget, tokens []string) ([]string, error) {
			var err error
			for _, d := range steps {
				if tokens, err = d(b, tokens); err != nil {
					return tokens, err
				}
			}
			return tokens, nil
		}, nil
	case "ByteLevel":
		return always(decodeBytes), nil
	case "ByteFallback":
		return always(decodeByteFallback), nil
	case "Fuse":
		return always(fuse), nil
	case "Strip":
		if utf8.RuneCountInString(c.Content) != 1 {
			return nil, fmt.Errorf("decoder Strip: content %.60q, want one character", c.Content)
		}
		return eachToken(stripToken(c.Content, c.Start, c.Stop)), nil
	case "Replace":
		m, err := c.Pattern.matcher()
		if err != nil {
			return nil, fmt.Errorf("decoder Replace: %w", err)
		}
		return eachToken(func(b *budget, t string) (string, error) {
			out, _, err := replaceAll(b, t, m, c.Content)
			return out, err
		}), nil
	case "Metaspace":
		m, err := c.metaspace()
		return decodeMetaspace(m.replacement, m.prepend != prependNever), err
	}
	return nil, unsupported("decoder", c.Type, "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Strip, Sequence")
}

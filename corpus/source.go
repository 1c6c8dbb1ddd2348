// Package corpus turns the SOURCE of --calibration and --eval into text.
//
// A source is one of the names demo, wikitext2 and c4, "-" for a text on standard
// input, or the path of a file:
//
//	.txt                            one running text, UTF-8
//	.jsonl .json .jsonl.gz .json.gz one JSON object a line, field "text"
//	.parquet                        string column "text"
//	.safetensors                    int64 "input_ids" [samples, seqlen]: token windows, no text
//
// It has two uses: documents to draw calibration windows from (Documents), and
// one text to measure perplexity on (Text). What a name stands for in each:
//
//	           Documents                          Text
//	demo       55 documents                       WikiText-2 raw test without blank rows
//	wikitext2  train rows joined by " ", running  test rows joined by "\n\n"
//	c4         356,317 documents of train shard 0 first 1100 documents of validation
//	                                              shard 0 joined by " "
//	.txt       the text, running                  the text
//	rows       the rows                           the rows joined by "\n\n"
//
// These are the joins of the pruning literature (SparseGPT's and Wanda's data
// loaders). A row of white space only counts as "" in a joined text.
package corpus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/hub"
)

// Documents is a collection of texts, read one at a time. Its memory is 8 bytes
// a document and the document being read; a compressed file is unpacked into a
// temporary file, which Close removes.
type Documents interface {
	Len() int
	Text(i int) (string, error)
	// Running reports whether this is one running text, to be tokenised once
	// as a whole, and not a collection to draw documents from. Len is then 1.
	Running() bool
	Close() error
}

// A Source names a text. Parse makes one.
type Source struct {
	// Progress, if not nil, is called while a compressed file is unpacked, with
	// bytes of it read and in all.
	Progress func(done, total int64)

	name string // as given
	kind kind
}

type kind uint8

const (
	kindDemo kind = iota + 1
	kindWikiText2
	kindC4
	kindStdin
	kindText
	kindJSON
	kindParquet
	kindTokens
)

var names = map[string]kind{"demo": kindDemo, "wikitext2": kindWikiText2, "c4": kindC4, "-": kindStdin}

var suffixes = []struct {
	suffix string
	kind   kind
}{
	{".txt", kindText},
	{".jsonl", kindJSON}, {".json", kindJSON}, {".jsonl.gz", kindJSON}, {".json.gz", kindJSON},
	{".parquet", kindParquet},
	{".safetensors", kindTokens},
}

// Parse returns the source that s names. A file must exist; it is not opened.
func Parse(s string) (Source, error) {
	if k, ok := names[s]; ok {
		return Source{name: s, kind: k}, nil
	}
	known := "known: demo, wikitext2, c4, - for standard input, or a file ending in"
	for _, x := range suffixes {
		if !strings.HasSuffix(strings.ToLower(s), x.suffix) {
			known += " " + x.suffix
			continue
		}
		info, err := os.Stat(s)
		if err != nil {
			return Source{}, fmt.Errorf("text source: %w", err)
		}
		if !info.Mode().IsRegular() {
			return Source{}, fmt.Errorf("text source %s: not a regular file", s)
		}
		return Source{name: s, kind: x.kind}, nil
	}
	return Source{}, fmt.Errorf("unknown text source %q; %s", s, known)
}

// String is the source as it was given to Parse.
func (s Source) String() string { return s.name }

// Local reports whether the source is read without the hub.
func (s Source) Local() bool { return s.kind != kindWikiText2 && s.kind != kindC4 }

// Tokens reports whether the source holds token windows (see Windows) and no
// text, so that no tokenizer is needed.
func (s Source) Tokens() bool { return s.kind == kindTokens }

// MaxWindows is the number of windows at the beginning of Text that the
// literature's protocol measures on: 256 for c4; 0 means all of them.
func (s Source) MaxWindows() int {
	if s.kind == kindC4 {
		return 256
	}
	return 0
}

// Use is what a source is wanted for.
type Use uint8

// The uses of a source: Calibration reads Documents, Evaluation reads Text.
const (
	Calibration Use = iota
	Evaluation
)

// hubFile is the file of the hub that a named source reads.
type hubFile struct {
	repo hub.Repo
	path string
}

var (
	wikiText2 = hub.Repo{Kind: hub.Dataset, ID: "Salesforce/wikitext", Revision: "main"}
	c4        = hub.Repo{Kind: hub.Dataset, ID: "allenai/c4", Revision: "main"}
)

func (s Source) hubFile(use Use) (hubFile, bool) {
	switch {
	case s.kind == kindWikiText2 && use == Calibration:
		return hubFile{wikiText2, "wikitext-2-raw-v1/train-00000-of-00001.parquet"}, true
	case s.kind == kindWikiText2:
		return hubFile{wikiText2, "wikitext-2-raw-v1/test-00000-of-00001.parquet"}, true
	case s.kind == kindC4 && use == Calibration:
		return hubFile{c4, "en/c4-train.00000-of-01024.json.gz"}, true
	case s.kind == kindC4:
		return hubFile{c4, "en/c4-validation.00000-of-00008.json.gz"}, true
	}
	return hubFile{}, false
}

// Locate returns the file that the source is read from, which is fetched from
// the hub first if it is not cached; "" where there is none. Called
// before anything slow, it shows early whether the text can be had.
func (s Source) Locate(ctx context.Context, h *hub.Client, use Use) (string, error) {
	f, ok := s.hubFile(use)
	if !ok {
		if s.kind == kindDemo || s.kind == kindStdin {
			return "", nil
		}
		return s.name, nil
	}
	path, err := h.File(ctx, f.repo, f.path)
	var missing *hub.NotCachedError
	if errors.As(err, &missing) {
		return "", fmt.Errorf("text source %s: %w: download %s elsewhere and give the path of that file in place of %s; any text file will do (.txt, .jsonl, .parquet)",
			s.name, err, missing.URL, s.name)
	}
	if err != nil {
		return "", fmt.Errorf("text source %s: %w", s.name, err)
	}
	return path, nil
}

// Documents opens the source to draw calibration windows from.
func (s Source) Documents(ctx context.Context, h *hub.Client) (Documents, error) {
	path, err := s.Locate(ctx, h, Calibration)
	if err != nil {
		return nil, err
	}
	switch s.kind {
	case kindDemo:
		return demoDocuments()
	case kindWikiText2:
		rows, err := openParquet(ctx, path)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		text, err := join(ctx, rows, rows.Len(), " ")
		if err != nil {
			return nil, err
		}
		return running(text), nil
	case kindText, kindStdin:
		text, err := s.readText(path)
		if err != nil {
			return nil, err
		}
		return running(text), nil
	case kindC4, kindJSON:
		return openLines(ctx, path, s.Progress)
	case kindParquet:
		return openParquet(ctx, path)
	case kindTokens:
		return nil, fmt.Errorf("%s: holds token windows, not text", path)
	}
	panic("corpus: Documents of an invalid Source")
}

func (s Source) readText(path string) (string, error) {
	if s.kind == kindStdin {
		return standardInput()
	}
	return readText(path)
}

// c4EvalDocuments is how many documents of C4's validation shard the literature
// joins to measure perplexity on.
const c4EvalDocuments = 1100

// Text reads the whole text to measure perplexity on.
func (s Source) Text(ctx context.Context, h *hub.Client) (string, error) {
	path, err := s.Locate(ctx, h, Evaluation)
	if err != nil {
		return "", err
	}
	var docs Documents
	switch s.kind {
	case kindDemo:
		return demoText(), nil
	case kindText, kindStdin:
		return s.readText(path)
	case kindC4, kindJSON:
		docs, err = openLines(ctx, path, s.Progress)
	case kindWikiText2, kindParquet:
		docs, err = openParquet(ctx, path)
	case kindTokens:
		return "", fmt.Errorf("%s: holds token windows, not text", path)
	default:
		panic("corpus: Text of an invalid Source")
	}
	if err != nil {
		return "", err
	}
	defer docs.Close()
	if s.kind == kindC4 {
		return join(ctx, docs, min(docs.Len(), c4EvalDocuments), " ")
	}
	return join(ctx, docs, docs.Len(), "\n\n")
}

// Shape returns how many token windows a source for which Tokens is true holds,
// and of how many tokens.
func (s Source) Shape() (samples, seqLen int, err error) {
	t, err := s.openTokens()
	if err != nil {
		return 0, 0, err
	}
	return t.samples, t.seqLen, t.f.Close()
}

// Windows reads the first seqLen ids of the first samples token windows of a
// source for which Tokens is true, at most its Shape: the rows of the int64
// tensor input_ids, each ≥ 0 and < 2³¹. Whether they lie in a model's vocabulary
// is the caller's to check.
func (s Source) Windows(samples, seqLen int) ([][]int32, error) {
	t, err := s.openTokens()
	if err != nil {
		return nil, err
	}
	defer t.f.Close()
	if samples < 0 || samples > t.samples || seqLen < 0 || seqLen > t.seqLen {
		panic(fmt.Sprintf("corpus: Windows(%d, %d) of %s, which holds %d × %d", samples, seqLen, s.name, t.samples, t.seqLen))
	}
	return t.read(samples, seqLen)
}

func (s Source) openTokens() (*tokens, error) {
	if s.kind != kindTokens {
		panic("corpus: token windows of a Source of text")
	}
	return openTokens(s.name)
}

// hasSuffix reports whether path ends in one of the suffixes.
func hasSuffix(path string, suffixes ...string) bool {
	base := strings.ToLower(filepath.Base(path))
	return slices.ContainsFunc(suffixes, func(x string) bool { return strings.HasSuffix(base, x) })
}

package corpus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/crepe-llm/crepe/demo"
)

// join reads the first n documents into one text with sep between them. A
// document of white space only counts as "": that is how the rows of WikiText
// are stored in its dataset, where a row that is not blank keeps the "\n" at
// its end.
func join(ctx context.Context, docs Documents, n int, sep string) (string, error) {
	var b strings.Builder
	for i := range n {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		text, err := docs.Text(i)
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteString(sep)
		}
		if !blank(text) {
			b.WriteString(text)
		}
		if b.Len() > MaxText {
			return "", fmt.Errorf("text of more than %d bytes when joined, want at most that", MaxText)
		}
	}
	return b.String(), nil
}

// blank reports whether Python's str.strip leaves nothing of s.
func blank(s string) bool {
	for _, r := range s {
		if !unicode.IsSpace(r) && (r < 0x1c || r > 0x1f) {
			return false
		}
	}
	return true
}

func demoDocuments() (Documents, error) {
	data := bytes.NewReader(demo.Calibration())
	d, err := indexLines(context.Background(), "demo", data, io.Discard, maxDocuments)
	if err != nil {
		return nil, err
	}
	d.r, d.close = data, func() error { return nil }
	return d, nil
}

func demoText() string { return string(demo.Evaluation()) }

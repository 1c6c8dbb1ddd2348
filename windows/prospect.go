package windows

import (
	"os"

	"github.com/crepe-llm/crepe/corpus"
	"github.com/crepe-llm/crepe/recipe"
)

// Of a text that has not been read: English takes about four bytes a token,
// and WikiText-2's test split has 1.29 MB.
const (
	bytesPerToken  = 4
	wikiText2Bytes = 1_290_000
)

// Prospect returns sets of about the shapes that Calibration and Evaluation
// would return, without their tokens and without reading or fetching a text:
// enough to plan with. Evaluation is nil for the source "none".
func (l *Loader) Prospect(c recipe.Calibration, e recipe.Eval) (cal, ev *Set, err error) {
	quiet := *l
	quiet.Warn = nil
	if cal, err = quiet.prospect(c.Source, c.SeqLen, c.Samples, true); err != nil {
		return nil, nil, err
	}
	if e.Source != "none" {
		ev, err = quiet.prospect(e.Source, e.SeqLen, e.Windows, false)
	}
	return cal, ev, err
}

// prospect is Prospect for one text, of which so many windows are drawn, or at most
// so many are cut.
func (l *Loader) prospect(source string, seqLen, windows int, drawn bool) (*Set, error) {
	src, err := corpus.Parse(source)
	if err != nil {
		return nil, err
	}
	if src.Tokens() {
		return l.given(src, source, seqLen, windows)
	}
	seqLen = l.clip(source, seqLen)
	if windows == 0 {
		windows = src.MaxWindows()
	}
	if windows == 0 {
		size := int64(wikiText2Bytes)
		if st, err := os.Stat(source); err == nil {
			size = min(st.Size(), corpus.MaxText)
		}
		windows = max(1, int(size/bytesPerToken/int64(seqLen)))
	}
	if err := fits(source, windows, seqLen); err != nil && drawn {
		return nil, err
	}
	windows = min(windows, max(1, maxTokens/seqLen)) // no text has more
	return &Set{Source: source, SeqLen: seqLen, Tokens: make([][]int32, windows)}, nil
}

package corpus

import (
	"context"
	"errors"
	"fmt"

	"github.com/crepe-llm/crepe/internal/parquet"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
)

// openParquet unpacks the column text into a temporary file.
func openParquet(ctx context.Context, path string) (Documents, error) {
	f, size, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := newSpool(size)
	if err != nil {
		return nil, fmt.Errorf("%s: unpacking: %w", path, err)
	}
	d := &records{name: path, r: s.f, starts: []int64{0}, close: s.Close,
		decode: func(raw []byte) (string, error) { return string(raw), nil }}
	most := documentsOf(size)
	err = parquet.Strings(f, size, "text", func(value []byte) error {
		if len(value) > maxDocument {
			return fmt.Errorf("document %d: more than %d bytes", len(d.starts), maxDocument)
		}
		if len(d.starts) > most {
			return fmt.Errorf("more than %d documents, which no file of %d bytes holds", most, size)
		}
		if err := pyjson.CheckUTF8(value); err != nil {
			return fmt.Errorf("document %d: %w", len(d.starts), err)
		}
		if _, err := s.Write(value); err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
		d.starts = append(d.starts, s.size)
		return ctx.Err()
	})
	if err == nil && d.Len() == 0 {
		err = errors.New("no documents")
	}
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		s.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

package checkpoint

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
)

const (
	singleName = "model.safetensors"
	indexName  = "model.safetensors.index.json"
	maxIndex   = 100_000_000 // bytes; a real one is below 10 MB
)

// member is a key of a JSON object with the text of its value.
type member struct {
	key   string
	value []byte
}

// index is a model.safetensors.index.json:
//
//	{"metadata": {…}, "weight_map": {"tensor": "file", …}}
type index struct {
	metadata []member
	names    []string // tensors in the file's order
	file     map[string]string
}

// parseIndex parses an index and refuses names of files that could lie
// anywhere but beside it.
func parseIndex(text []byte) (*index, error) {
	x := &index{}
	s := &scanner{data: text}
	seen := map[string]bool{}
	err := s.object("the index", func(key string) error {
		if seen[key] {
			return s.errorf("key %.200q is there twice", key)
		}
		seen[key] = true
		switch key {
		case "weight_map":
			return x.parseMap(s)
		case "metadata":
			return x.parseMetadata(s)
		}
		_, err := s.raw("the index")
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	if len(x.names) == 0 {
		return nil, fmt.Errorf("no tensor in weight_map")
	}
	return x, nil
}

func (x *index) parseMap(s *scanner) error {
	x.file = map[string]string{}
	return s.object("weight_map", func(name string) error {
		if _, twice := x.file[name]; twice {
			return s.errorf("tensor %.200q is there twice", name)
		}
		file, err := s.str("weight_map")
		if err != nil {
			return err
		}
		if !plainName(file) {
			return s.errorf("tensor %.200q: file %.200q: want the name of a file in the same folder", name, file)
		}
		x.names = append(x.names, name)
		x.file[name] = file
		return nil
	})
}

func (x *index) parseMetadata(s *scanner) error {
	if s.peek() != '{' { // null, as some tools write
		_, err := s.raw("metadata")
		return err
	}
	return s.object("metadata", func(key string) error {
		value, err := s.raw("metadata")
		if err == nil && !json.Valid(value) {
			err = s.errorf("metadata: %.100q is not JSON", value)
		}
		x.metadata = append(x.metadata, member{key, value})
		return err
	})
}

// plainName reports whether name is that of a file in whatever folder it is
// looked up in, on every system: no separator of Unix or Windows, no drive, no
// dots alone, no device such as NUL.
func plainName(name string) bool {
	return name != "." && !strings.ContainsAny(name, "/\\:\x00") && filepath.IsLocal(name)
}

// encodeIndex returns an index that says in which of the files each tensor is.
// Metadata of the input's index is kept but for total_size, the sum of the
// tensors' bytes, which comes as transformers writes it.
func encodeIndex(metadata []member, shards []Shard) []byte {
	var total int64
	for _, f := range shards {
		for _, t := range f.Tensors {
			total += t.Size
		}
	}
	text := []byte("{\n  \"metadata\": {")
	for _, m := range metadata {
		if m.key != "total_size" {
			text = append(appendString(append(text, "\n    "...), m.key), ": "...)
			text = append(append(text, m.value...), ',')
		}
	}
	text = fmt.Appendf(text, "\n    \"total_size\": %d\n  },\n  \"weight_map\": {", total)
	for i, f := range shards {
		for j, t := range f.Tensors {
			if i+j > 0 {
				text = append(text, ',')
			}
			text = append(appendString(append(text, "\n    "...), t.Name), ": "...)
			text = appendString(text, f.Name)
		}
	}
	return append(text, "\n  }\n}\n"...)
}

package corpus

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/crepe-llm/crepe/internal/regular"
)

// maxHeader bounds the header of a safetensors file of token windows; the format
// itself allows 100 MB.
const maxHeader = 16 << 20

// maxIDs bounds the ids that are read of a file: 1 GiB of them, a hundred times
// what a calibration takes.
const maxIDs = 1 << 28

// tokens is an open file of token windows.
type tokens struct {
	f               *os.File
	samples, seqLen int   // of the file
	offset          int64 // of the first id
}

// openTokens opens a safetensors file with an int64 tensor input_ids [samples, seqlen].
func openTokens(path string) (*tokens, error) {
	f, size, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	t := &tokens{f: f}
	if t.samples, t.seqLen, t.offset, err = tokensHeader(f, size); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// read returns the first seqLen ids of the first samples rows. It reads no others.
func (t *tokens) read(samples, seqLen int) ([][]int32, error) {
	if int64(samples)*int64(seqLen) > maxIDs {
		return nil, fmt.Errorf("%s: %d windows of %d tokens, want at most %d tokens in all: ask for fewer or shorter ones", t.f.Name(), samples, seqLen, maxIDs)
	}
	ids := make([]int32, samples*seqLen)
	windows := make([][]int32, samples)
	raw := make([]byte, 8*seqLen)
	for i := range windows {
		if _, err := t.f.ReadAt(raw, t.offset+8*int64(i)*int64(t.seqLen)); err != nil {
			return nil, fmt.Errorf("%s: input_ids: %w", t.f.Name(), err)
		}
		windows[i] = ids[i*seqLen : (i+1)*seqLen : (i+1)*seqLen]
		for j := range windows[i] {
			id := int64(binary.LittleEndian.Uint64(raw[8*j:]))
			if id < 0 || id > math.MaxInt32 {
				return nil, fmt.Errorf("%s: input_ids[%d, %d] is %d, want a token id", t.f.Name(), i, j, id)
			}
			windows[i][j] = int32(id)
		}
	}
	return windows, nil
}

// tokensHeader reads the header of a safetensors file of size bytes: the shape
// of input_ids, and the offset of its data, which lie inside the file.
func tokensHeader(r io.ReaderAt, size int64) (samples, seqLen int, offset int64, err error) {
	var head [8]byte
	if size < int64(len(head)) {
		return 0, 0, 0, fmt.Errorf("not a safetensors file: %d bytes", size)
	}
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return 0, 0, 0, err
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > maxHeader || n > uint64(size)-uint64(len(head)) {
		return 0, 0, 0, fmt.Errorf("not a safetensors file: header of %d bytes in a file of %d, want at most %d", n, size, maxHeader)
	}
	raw := make([]byte, n)
	if _, err := r.ReadAt(raw, int64(len(head))); err != nil {
		return 0, 0, 0, err
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw, &header); err != nil {
		return 0, 0, 0, fmt.Errorf("header: %w", err)
	}
	entry, ok := header["input_ids"]
	if !ok {
		return 0, 0, 0, fmt.Errorf("no tensor input_ids among %d", len(header))
	}
	var t struct {
		DType   string  `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets []int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(entry, &t); err != nil {
		return 0, 0, 0, fmt.Errorf("header: input_ids: %w", err)
	}
	if t.DType != "I64" || len(t.Shape) != 2 {
		return 0, 0, 0, fmt.Errorf("input_ids is %.20q of shape %.60s, want I64 [samples, seqlen]", t.DType, fmt.Sprint(t.Shape))
	}
	data := size - int64(len(head)) - int64(n)
	if len(t.Offsets) != 2 || t.Offsets[0] < 0 || t.Offsets[1] < t.Offsets[0] || t.Offsets[1] > data {
		return 0, 0, 0, fmt.Errorf("input_ids: data offsets %.60s outside the %d bytes of data: truncated?", fmt.Sprint(t.Offsets), data)
	}
	bytes := t.Offsets[1] - t.Offsets[0]
	rows, cols := t.Shape[0], t.Shape[1]
	if rows < 1 || cols < 1 || rows > bytes/8/cols || rows*cols*8 != bytes {
		return 0, 0, 0, fmt.Errorf("input_ids: shape %v in %d bytes", t.Shape, bytes)
	}
	return int(rows), int(cols), int64(len(head)) + int64(n) + t.Offsets[0], nil
}

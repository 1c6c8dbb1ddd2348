package corpus

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
)

// maxHeader bounds the header of a safetensors file of token windows; the format
// itself allows 100 MB.
const maxHeader = 16 << 20

// readTokens reads the rows of the int64 tensor input_ids [samples, seqlen].
func readTokens(path string) ([][]int32, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	samples, seqLen, offset, err := tokensHeader(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, offset, int64(samples)*int64(seqLen)*8), 1<<20)
	ids := make([]int32, samples*seqLen) // half the bytes that the file was seen to have
	windows := make([][]int32, samples)
	for i := range windows {
		row := ids[i*seqLen : (i+1)*seqLen : (i+1)*seqLen]
		for t := range row {
			var word [8]byte
			if _, err := io.ReadFull(r, word[:]); err != nil {
				return nil, fmt.Errorf("%s: input_ids: %w", path, err)
			}
			id := int64(binary.LittleEndian.Uint64(word[:]))
			if id < 0 || id > math.MaxInt32 {
				return nil, fmt.Errorf("%s: input_ids[%d, %d] is %d, want a token id", path, i, t, id)
			}
			row[t] = int32(id)
		}
		windows[i] = row
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

package task

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"time"
)

// Results keeps likelihoods from one run to the next, so that an interrupted
// one goes on and an equal one measures nothing.
//
// They are those of one model as one program computes it, in a file of their
// own. A document's key is the hash of the tokens that the model is given and
// asked for: whatever changes these (text, template, tokenizer, BOS, length)
// changes the key. The file is only ever appended to, each line has a checksum,
// and a line that is damaged, or torn by the end of a process, counts for
// nothing; so several processes may use one file.
type Results struct {
	known map[key][]float64
	file  *os.File
	err   error // the first in writing; nothing is written after it
	hits  int
}

type key [16]byte

// resultAge is how long results that nobody uses are kept.
const resultAge = 30 * 24 * time.Hour

// OpenResults opens the results in dir, which is made if need be, of what
// identity describes: all that the likelihoods depend on beside the tokens.
func OpenResults(dir string, identity ...string) (*Results, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	sum := sha256.New()
	for _, s := range identity {
		fmt.Fprintf(sum, "%d %s\n", len(s), s)
	}
	path := filepath.Join(dir, hex.EncodeToString(sum.Sum(nil)[:16])+resultSuffix)
	removeOld(dir, path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	r := &Results{known: map[key][]float64{}, file: f}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxResult)
	for lines.Scan() {
		if k, log, ok := parseResult(lines.Bytes()); ok {
			r.known[k] = log
		}
	}
	// What follows a line that is too long is measured again.
	if err := lines.Err(); err != nil && err != bufio.ErrTooLong {
		f.Close()
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // it is in use; an age that is wrong loses no more than results
	return r, nil
}

const (
	resultSuffix = ".results"
	maxResult    = 1 << 20 // bytes of a line
)

// removeOld removes the files in dir but keep that have not been used for long.
func removeOld(dir, keep string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*"+resultSuffix)) // only of a bad pattern is there an error
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && path != keep && time.Since(info.ModTime()) > resultAge {
			_ = os.Remove(path) // another process may have been first
		}
	}
}

// Hits returns how many documents' likelihoods were found and not measured.
func (r *Results) Hits() int {
	if r == nil {
		return 0
	}
	return r.hits
}

// Path returns the file.
func (r *Results) Path() string { return r.file.Name() }

// Close gives the file back. Its error is the first that writing met: what was
// measured after it is not kept.
func (r *Results) Close() error {
	if err := r.file.Close(); r.err == nil {
		r.err = err
	}
	return r.err
}

// result is a line of the file, behind its checksum.
type result struct {
	Key string    `json:"key"`
	Log []float64 `json:"log"`
}

// parseResult reads "CRC-32 of the rest, hexadecimal, a space, the rest".
func parseResult(line []byte) (k key, log []float64, ok bool) {
	if len(line) < 9 || line[8] != ' ' {
		return k, nil, false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:8]); err != nil || binary.BigEndian.Uint32(sum[:]) != crc32.ChecksumIEEE(line[9:]) {
		return k, nil, false
	}
	var r result
	if err := json.Unmarshal(line[9:], &r); err != nil || len(r.Key) != 2*len(k) {
		return k, nil, false
	}
	if _, err := hex.Decode(k[:], []byte(r.Key)); err != nil {
		return k, nil, false
	}
	return k, r.Log, true
}

// find returns the likelihoods of a document if they are known.
func (r *Results) find(s *sequences) (Likelihoods, bool) {
	if r == nil {
		return Likelihoods{}, false
	}
	log, ok := r.known[s.key()]
	if !ok || len(log) != len(s.spans) {
		return Likelihoods{}, false
	}
	l := s.likelihoods()
	copy(l.Log, log)
	r.hits++
	return l, true
}

// add keeps the likelihoods of docs, in one write: what several processes
// append at once does not mix. The line's end stands before it too, so that
// one torn before it costs no other.
func (r *Results) add(docs []*sequences, all []Likelihoods) {
	if r == nil || r.err != nil {
		return
	}
	var text []byte
	for i, s := range docs {
		k := s.key()
		line, err := json.Marshal(result{hex.EncodeToString(k[:]), all[i].Log})
		if err != nil {
			panic(err) // finite numbers, as Score has seen
		}
		text = fmt.Appendf(text, "\n%08x %s", crc32.ChecksumIEEE(line), line)
	}
	_, r.err = r.file.Write(append(text, '\n'))
}

// key is the hash of what the model is given and asked for.
func (s *sequences) key() (k key) {
	h := sha256.New()
	ids := func(list []int32) {
		buf := binary.LittleEndian.AppendUint64(nil, uint64(len(list)))
		for _, id := range list {
			buf = binary.LittleEndian.AppendUint32(buf, uint32(id))
		}
		h.Write(buf)
	}
	ids(s.prefix)
	for _, sp := range s.spans {
		ids(s.rests[sp.rest])
		ids([]int32{int32(min(sp.first, math.MaxInt32))})
		ids(sp.targets)
	}
	copy(k[:], h.Sum(nil))
	return k
}

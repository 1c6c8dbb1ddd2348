package task

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/provenance"
)

// Results keeps likelihoods from one run to the next, so that an interrupted
// one goes on and an equal one measures nothing.
//
// They are those of one model as one program and engine compute it, in a file of
// their own, whose first line says which. A document's key is the hash of the
// tokens that the model is given and asked for: whatever changes these (text,
// template, tokenizer, BOS, length) changes the key. The file is only ever
// appended to, each line has a checksum, and a line that is damaged, or torn by
// the end of a process, counts for nothing; so several processes may use one file.
type Results struct {
	known map[key][]float64
	other provenance.Record // Other
	file  *os.File
	err   error // the first in writing; nothing is written after it
	hits  int
}

type key [16]byte

// resultAge is how long results that nobody uses are kept.
const resultAge = 30 * 24 * time.Hour

// OpenResults opens the results in dir, which is made if need be, of what p says:
// all that the likelihoods depend on beside the tokens.
func OpenResults(dir string, p provenance.Record) (*Results, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, p.Key()[:32]+resultSuffix)
	removeOld(dir, path)
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file: remove it", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	r := &Results{file: f}
	if st, err := f.Stat(); err == nil && st.Size() > maxResults {
		f.Close()
		return nil, fmt.Errorf("%s: %d bytes, want at most %d: remove it", path, st.Size(), maxResults)
	}
	if r.known, err = readResults(io.LimitReader(f, maxResults)); err != nil {
		f.Close()
		return nil, err
	}
	if len(r.known) == 0 {
		r.other = otherOrigin(dir, path, p)
		r.write(origin{p})
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // it is in use; an age that is wrong loses no more than results
	return r, nil
}

const (
	resultSuffix = ".results"
	maxResult    = 1 << 20  // bytes of a line
	maxResults   = 64 << 20 // bytes of a file: all tasks of a model have below 10 MB
)

// readResults returns the results in the lines of r. What follows a line that is too
// long is measured again.
func readResults(r io.Reader) (map[key][]float64, error) {
	known := map[key][]float64{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxResult)
	for lines.Scan() {
		if k, log, ok := parseResult(lines.Bytes()); ok {
			known[k] = log
		}
	}
	if err := lines.Err(); err != nil && err != bufio.ErrTooLong {
		return nil, err
	}
	return known, nil
}

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

// Other returns what the results of the same model that another program or engine
// has left depend on; nil if there are none, or some of its own.
func (r *Results) Other() provenance.Record { return r.other }

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

// origin is the first line of the file, behind its checksum.
type origin struct {
	Provenance provenance.Record `json:"provenance"`
}

// otherOrigin returns the origin of a file in dir, but path, which asks for what p
// asks for; nil if there is none.
func otherOrigin(dir, path string, p provenance.Record) provenance.Record {
	paths, _ := filepath.Glob(filepath.Join(dir, "*"+resultSuffix)) // only of a bad pattern is there an error
	var all []provenance.Record
	for _, other := range paths {
		if o := readOrigin(other); other != path && o != nil {
			all = append(all, o)
		}
	}
	return provenance.Nearest(all, p)
}

// readOrigin returns the origin of the file at path, nil if it does not say.
func readOrigin(path string) provenance.Record {
	f, _, err := regular.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxResult)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var o origin
		if !parseLine(lines.Bytes(), &o) {
			return nil
		}
		return o.Provenance
	}
	return nil
}

// result is another line of the file, behind its checksum.
type result struct {
	Key string    `json:"key"`
	Log []float64 `json:"log"`
}

// parseLine reads "CRC-32 of the rest, hexadecimal, a space, the rest", which is
// JSON, into v.
func parseLine(line []byte, v any) bool {
	if len(line) < 9 || line[8] != ' ' {
		return false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:8]); err != nil || binary.BigEndian.Uint32(sum[:]) != crc32.ChecksumIEEE(line[9:]) {
		return false
	}
	return json.Unmarshal(line[9:], v) == nil
}

func parseResult(line []byte) (k key, log []float64, ok bool) {
	var r result
	if !parseLine(line, &r) || len(r.Key) != 2*len(k) {
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
	if r == nil {
		return
	}
	lines := make([]any, len(docs))
	for i, s := range docs {
		k := s.key()
		lines[i] = result{hex.EncodeToString(k[:]), all[i].Log}
	}
	r.write(lines...)
}

func (r *Results) write(lines ...any) {
	if r.err != nil {
		return
	}
	var text []byte
	for _, l := range lines {
		line, err := json.Marshal(l)
		if err != nil {
			panic(err) // strings, and finite numbers, as Score has seen
		}
		text = fmt.Appendf(text, "\n%08x %s", crc32.ChecksumIEEE(line), line)
	}
	_, r.err = r.file.Write(append(text, '\n'))
}

// Hash identifies the tokens that m is given and asked for by the documents of s.
func (e *Encoder) Hash(m *model.Model, s Set) (string, error) {
	all, err := e.all(m, s.Documents)
	if err != nil {
		return "", place(err, []Set{s})
	}
	h := sha256.New()
	for _, doc := range all {
		k := doc.key()
		h.Write(k[:])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
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

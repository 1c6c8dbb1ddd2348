package tokenizer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// pieceModel is what is read of a SentencePiece model, sentencepiece_model.proto
// of github.com/google/sentencepiece; the defaults are that file's.
type pieceModel struct {
	pieces []piece

	modelType                  uint64 // 1 unigram, 2 BPE, 3 word, 4 char
	byteFallback, spaceSuffix  bool
	unkID, bosID, eosID        int32 // −1: none
	charsmap                   int   // length in bytes
	ruleName                   string
	dummyPrefix, removeSpaces  bool
	escapeSpaces, denormalizes bool
}

type piece struct {
	text  string
	score float32
	kind  pieceKind
}

type pieceKind uint64

const (
	normalPiece  pieceKind = 1
	unknownPiece pieceKind = 2
	controlPiece pieceKind = 3
	userPiece    pieceKind = 4
	unusedPiece  pieceKind = 5
	bytePiece    pieceKind = 6
)

// field is a field of a protobuf message: its number and its value, a number
// (wire types 0, 1, 5) or bytes (wire type 2).
type field struct {
	number int
	value  uint64
	bytes  []byte
	isBlob bool
}

// fields calls f with each field of a message.
func fields(msg []byte, f func(field) error) error {
	for len(msg) > 0 {
		key, n := binary.Uvarint(msg)
		if n <= 0 || key>>3 > math.MaxInt32 {
			return fmt.Errorf("protobuf: broken key")
		}
		msg = msg[n:]
		x := field{number: int(key >> 3)}
		size := 0
		switch key & 7 {
		case 0:
			if x.value, size = binary.Uvarint(msg); size <= 0 {
				return fmt.Errorf("protobuf: field %d: broken number", x.number)
			}
		case 1:
			size = 8
		case 5:
			size = 4
		case 2:
			length, n := binary.Uvarint(msg)
			if n <= 0 || length > uint64(len(msg)-n) {
				return fmt.Errorf("protobuf: field %d: %d bytes, but %d are left", x.number, length, len(msg)-max(n, 0))
			}
			size = n + int(length)
			x.bytes, x.isBlob = msg[n:size], true
		default:
			return fmt.Errorf("protobuf: field %d: wire type %d, want 0, 1, 2 or 5", x.number, key&7)
		}
		if size > len(msg) {
			return fmt.Errorf("protobuf: field %d: truncated", x.number)
		}
		switch key & 7 {
		case 1:
			x.value = binary.LittleEndian.Uint64(msg)
		case 5:
			x.value = uint64(binary.LittleEndian.Uint32(msg))
		}
		msg = msg[size:]
		if err := f(x); err != nil {
			return err
		}
	}
	return nil
}

func readPieceModel(data []byte) (*pieceModel, error) {
	m := &pieceModel{
		modelType: 1, bosID: 1, eosID: 2,
		dummyPrefix: true, removeSpaces: true, escapeSpaces: true,
	}
	err := fields(data, func(x field) error {
		switch x.number {
		case 1:
			p, err := readPiece(x.bytes)
			if err != nil {
				return fmt.Errorf("piece %d: %w", len(m.pieces), err)
			}
			if len(m.pieces) == maxVocab {
				return fmt.Errorf("more than %d pieces are not supported", maxVocab)
			}
			m.pieces = append(m.pieces, p)
		case 2:
			return fields(x.bytes, m.trainerField)
		case 3:
			return fields(x.bytes, m.normalizerField)
		case 5: // denormalizer
			return fields(x.bytes, func(x field) error {
				m.denormalizes = m.denormalizes || x.number == 2 && len(x.bytes) > 0
				return nil
			})
		}
		return nil
	})
	return m, err
}

func readPiece(msg []byte) (piece, error) {
	p := piece{kind: normalPiece}
	err := fields(msg, func(x field) error {
		switch x.number {
		case 1:
			p.text = string(x.bytes)
		case 2:
			p.score = math.Float32frombits(uint32(x.value))
		case 3:
			p.kind = pieceKind(x.value)
		}
		return nil
	})
	switch {
	case err != nil:
		return p, err
	case !utf8.ValidString(p.text):
		return p, fmt.Errorf("%.60q is not UTF-8", p.text)
	case p.text == "":
		return p, fmt.Errorf("empty piece")
	case p.kind < normalPiece || p.kind > bytePiece:
		return p, fmt.Errorf("%.60q: type %d, want 1 to 6", p.text, p.kind)
	case p.kind == unusedPiece:
		return p, fmt.Errorf("%.60q: unused pieces are not supported", p.text)
	case p.score != p.score:
		return p, fmt.Errorf("%.60q: score is not a number", p.text)
	}
	return p, nil
}

func (m *pieceModel) trainerField(x field) error {
	switch x.number {
	case 3:
		m.modelType = x.value
	case 24:
		m.spaceSuffix = x.value != 0
	case 35:
		m.byteFallback = x.value != 0
	case 40:
		m.unkID = int32(x.value)
	case 41:
		m.bosID = int32(x.value)
	case 42:
		m.eosID = int32(x.value)
	}
	return nil
}

func (m *pieceModel) normalizerField(x field) error {
	switch x.number {
	case 1:
		m.ruleName = string(x.bytes)
	case 2:
		m.charsmap = len(x.bytes)
	case 3:
		m.dummyPrefix = x.value != 0
	case 4:
		m.removeSpaces = x.value != 0
	case 5:
		m.escapeSpaces = x.value != 0
	}
	return nil
}

// check refuses what is not supported.
func (m *pieceModel) check() error {
	names := map[uint64]string{1: "unigram", 3: "word", 4: "char"}
	switch {
	case len(m.pieces) == 0:
		return fmt.Errorf("not a SentencePiece model: no pieces")
	case m.modelType != 2:
		name, ok := names[m.modelType]
		if !ok {
			name = fmt.Sprint(m.modelType)
		}
		return fmt.Errorf("model type %.60q is not supported; supported: bpe", name)
	case m.charsmap > 0:
		return fmt.Errorf("normalization %.60q is not supported; supported: identity", m.ruleName)
	case m.spaceSuffix || !m.escapeSpaces || m.denormalizes:
		return fmt.Errorf("treat_whitespace_as_suffix, escape_whitespaces false and denormalization are not supported")
	case m.unkID < 0 || int(m.unkID) >= len(m.pieces) || m.pieces[m.unkID].kind != unknownPiece:
		return fmt.Errorf("unk_id %d is not an unknown piece", m.unkID)
	case int(m.bosID) >= len(m.pieces) || int(m.eosID) >= len(m.pieces):
		return fmt.Errorf("bos_id %d, eos_id %d, want less than %d, the number of pieces", m.bosID, m.eosID, len(m.pieces))
	}
	seen := make(map[string]bool, len(m.pieces))
	for i, p := range m.pieces {
		if seen[p.text] {
			return fmt.Errorf("piece %d: %.60q appears twice", i, p.text)
		}
		seen[p.text] = true
	}
	return nil
}

// maxPiece is the length to which a normal piece is looked at for merges, in
// bytes: the trainer's default is 16 characters.
const maxPiece = 1024

// bpe returns the model. SentencePiece has no list of merges: any two
// neighbours whose texts together are a piece may merge, the piece of highest
// score first, of equal scores the leftmost place. So the rank of a merge is
// the rank of its piece's score, shared by all pairs that make it.
func (m *pieceModel) bpe() (*bpe, error) {
	b := &bpe{words: make(map[string]int32, len(m.pieces)), unk: m.unkID, fuseUnk: true}
	all := make(map[string]int32, len(m.pieces))
	var scores []float32
	for i, p := range m.pieces {
		all[p.text] = int32(i)
		if p.kind == normalPiece || p.kind == userPiece {
			b.words[p.text] = int32(i)
			scores = append(scores, -p.score)
		}
	}
	slices.Sort(scores)
	scores = slices.Compact(scores)
	type merge struct {
		left, right, id int32
		rank            uint32
	}
	var merges []merge
	for i, p := range m.pieces {
		if b.words[p.text] != int32(i) || p.kind != normalPiece {
			continue
		}
		if len(p.text) > maxPiece {
			return nil, fmt.Errorf("piece %d: %d bytes, want at most %d", i, len(p.text), maxPiece)
		}
		rank, _ := slices.BinarySearchFunc(scores, -p.score, cmp.Compare[float32])
		for j := range p.text {
			left, ok1 := b.words[p.text[:j]]
			right, ok2 := b.words[p.text[j:]]
			// User-defined pieces are cut out before and never merge.
			if ok1 && ok2 && m.pieces[left].kind == normalPiece && m.pieces[right].kind == normalPiece {
				merges = append(merges, merge{left, right, int32(i), uint32(rank)})
			}
		}
	}
	b.merges = newMergeTable(len(merges))
	for _, x := range merges {
		b.merges.set(x.left, x.right, x.rank, x.id)
	}
	if m.byteFallback {
		b.fallback = byteFallback(all)
		if slices.Contains(b.fallback[:], -1) {
			return nil, fmt.Errorf("byte_fallback: want all pieces from <0x00> to <0xFF>")
		}
	}
	b.setSymbols(b.words)
	return b, nil
}

// breakable is bpe.safeBreak for pieces.
func (m *pieceModel) breakable(b *bpe) bool {
	if _, ok := b.words[metaMark]; !ok {
		return false
	}
	return !slices.ContainsFunc(m.pieces, func(p piece) bool {
		i := strings.LastIndex(p.text, metaMark)
		return p.kind == normalPiece && i > 0 && strings.Trim(p.text[:i], metaMark) != ""
	})
}

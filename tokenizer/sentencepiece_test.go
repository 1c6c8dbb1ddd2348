package tokenizer

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
)

// blob returns a protobuf field of bytes.
func blob(number int, b []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(number)<<3|2)
	return append(binary.AppendUvarint(out, uint64(len(b))), b...)
}

// num returns a protobuf field of a number.
func num(number int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(number)<<3), v)
}

// pieces returns a SentencePiece model of <unk>, <s>, </s> and the pieces, of
// falling score, and the fields of its trainer and normalizer.
func pieces(texts []string, trainer, normalizer []byte) []byte {
	var out []byte
	for i, s := range append([]string{"<unk>", "<s>", "</s>"}, texts...) {
		kind := normalPiece
		if i < 3 {
			kind = []pieceKind{unknownPiece, controlPiece, controlPiece}[i]
		}
		score := binary.LittleEndian.AppendUint32([]byte{2<<3 | 5}, math.Float32bits(float32(-i)))
		out = append(out, blob(1, slices.Concat(blob(1, []byte(s)), score, num(3, uint64(kind))))...)
	}
	return slices.Concat(out, blob(2, slices.Concat(num(3, 2), trainer)), blob(3, normalizer))
}

// By hand: SentencePiece merges by the score of the result, here ab before bc,
// and knows no characters but those of its pieces.
func TestSentencePieceTiny(t *testing.T) {
	tok, err := parseSentencePiece(pieces([]string{"▁", "ab", "bc", "a", "b", "c"}, nil, num(4, 0)), llamaConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int32{
		"abc":   {1, 3, 4, 8},
		"bc x!": {1, 3, 5, 3, 0},
		"":      {1},
		"</s>a": {1, 2, 3, 6},
	} {
		if got := encode(t, tok, text, true); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if got := decode(t, tok, []int32{1, 3, 4, 3, 8}, true); got != "ab c" {
		t.Errorf("Decode = %q, want \"ab c\"", got)
	}
}

func TestSentencePieceErrors(t *testing.T) {
	small := []string{"▁", "a"}
	for _, c := range []struct {
		data []byte
		want string
	}{
		{nil, "no pieces"},
		{pieces(small, num(3, 1), nil), `model type "unigram" is not supported; supported: bpe`},
		{pieces(small, num(3, 9), nil), `model type "9"`},
		{pieces(small, nil, slices.Concat(blob(1, []byte("nmt_nfkc")), blob(2, []byte("x")))), `normalization "nmt_nfkc" is not supported`},
		{pieces(small, num(24, 1), nil), "treat_whitespace_as_suffix"},
		{pieces(small, num(40, 1), nil), "unk_id 1 is not an unknown piece"},
		{pieces(small, num(41, 100), nil), "bos_id 100"},
		{pieces(small, num(35, 1), nil), "byte_fallback: want all pieces from <0x00> to <0xFF>"},
		{pieces([]string{"a", "a"}, nil, nil), `"a" appears twice`},
		{pieces([]string{"\xff"}, nil, nil), "is not UTF-8"},
		{pieces([]string{""}, nil, nil), "piece 3: empty piece"},
		{pieces([]string{strings.Repeat("a", 2000)}, nil, nil), "2000 bytes, want at most 1024"},
		{blob(1, append(blob(1, []byte("a")), num(3, 5)...)), "unused pieces are not supported"},
		{pieces(small, nil, nil)[:20], "protobuf"},
		{[]byte{0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F}, "bytes, but 0 are left"},
	} {
		_, err := parseSentencePiece(c.data, llamaConfig{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}

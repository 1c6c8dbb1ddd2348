package tokenizer

import (
	"os"
	"testing"
)

// The evaluation text with the demo's tokenizer: with an empty cache, as a run
// of crepe encodes it, and once more.
func BenchmarkEncode(b *testing.B) {
	tok, err := Load("../demo/data/model")
	if err != nil {
		b.Fatal(err)
	}
	text := evalText(b)
	classes() // once in a process, 3 ms
	for _, cached := range []bool{false, true} {
		name := "first"
		if cached {
			name = "again"
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if !cached {
					tok.idle = nil
				}
				encode(b, tok, text, true)
			}
		})
	}
}

// The evaluation text with the other tokenizers of testdata. Their vocabularies
// are small: words have more tokens than published tokenizers give them.
func BenchmarkEncodeGolden(b *testing.B) {
	text := evalText(b)[:300000]
	for name, tok := range goldenTokenizers(b) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.idle = nil
				encode(b, tok, text, true)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	tok, err := Load("../demo/data/model")
	if err != nil {
		b.Fatal(err)
	}
	text := evalText(b)
	ids := encode(b, tok, text, false)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		decode(b, tok, ids, true)
	}
}

// BenchmarkParse reads the tokenizer.json that CREPE_TOKENIZER names, or the
// demo's.
func BenchmarkParse(b *testing.B) {
	path := "../demo/data/model/tokenizer.json"
	if p := os.Getenv("CREPE_TOKENIZER"); p != "" {
		path = p
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

package calibration

import (
	"testing"

	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/tokenizer"
)

func TestSampleOfTheDemoIsTheReferences(t *testing.T) {
	dir, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	checkSampling(t, "demo", func(s string) ([]int32, error) { return tok.Encode(s, true) })
}

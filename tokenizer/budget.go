package tokenizer

import "fmt"

// budget is what one call of Encode or Decode may still use. A tokenizer.json
// is a stranger's: its patterns may take exponential time, and its steps may
// each double the text.
type budget struct {
	steps  int // of the pattern engine
	growth int // bytes that the steps may add to the text
	most   int // growth at the beginning
}

// Limits of one call: engine steps for a third of a second and a microsecond for
// each byte, of which published patterns take a few steps; growth for more than
// any published tokenizer adds, which write a space as three bytes.
const (
	baseSteps    = 1 << 26
	stepsPerByte = 256

	stepsPerLookup = 16 // in the trie of added tokens: about their time

	baseGrowth   = 1 << 20
	growthFactor = 8
)

func newBudget(bytes int) budget {
	most := baseGrowth + growthFactor*bytes
	return budget{steps: baseSteps + stepsPerByte*bytes, growth: most, most: most}
}

// grow takes n bytes; n may be negative, which gives nothing back.
func (b *budget) grow(n int) error {
	b.growth -= max(n, 0)
	if b.growth < 0 {
		return fmt.Errorf("the text grows by more than %d bytes; more than 1 MiB and %d times its length is not supported", b.most, growthFactor)
	}
	return nil
}

package engine

import "fmt"

// Compute is the type of the inputs of matrix products. Sums are float32 or
// better in both.
type Compute uint8

const (
	// F32 multiplies float32 activations with weights widened to float32.
	F32 Compute = iota
	// BF16 rounds activations to bfloat16 before a product with a bfloat16
	// weight, and queries, keys, values and attention's weights where the
	// processor multiplies bfloat16; other weights are multiplied as in F32.
	BF16
)

// String returns "f32" or "bf16".
func (c Compute) String() string {
	if c == BF16 {
		return "bf16"
	}
	return "f32"
}

// ParseCompute reads "f32" or "bf16".
func ParseCompute(s string) (Compute, error) {
	switch s {
	case "f32":
		return F32, nil
	case "bf16":
		return BF16, nil
	}
	return F32, fmt.Errorf("compute %q, want f32 or bf16", s)
}

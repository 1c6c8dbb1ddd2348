// Package kernel holds the loops that the processor spends its time in.
//
// Each kernel's doc comment is its reference program; the portable body in the
// *_generic.go files is that program, and the assembly, chosen at run time by
// package cpu, is tested against it. Slices of wrong length are the caller's
// bug and panic. Operands never alias unless a comment says that they may.
package kernel

// Source is the right-hand operand of a matrix product, row-major, in the type
// it is stored in. Exactly one field is set; 16-bit elements are widened to
// float32 while they are packed, so no float32 copy of a weight exists.
type Source struct {
	F32  []float32
	BF16 []uint16
	F16  []uint16

	Packed *Packed // Cols wide, without padding between rows
}

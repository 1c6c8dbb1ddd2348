package tensor

import "fmt"

// DType is an element type of a safetensors file. Only F32, F16 and BF16 are
// computed with; tensors of the others are carried through byte for byte.
type DType uint8

// The element types of the safetensors format. The zero DType is none of them.
const (
	Invalid DType = iota
	F32
	F16
	BF16
	F64
	I64
	I32
	I16
	I8
	U64
	U32
	U16
	U8
	Bool
	F8E4M3
	F8E5M2
	F8E4M3FNUZ
	F8E5M2FNUZ
	F8E8M0
	F6E2M3
	F6E3M2
	F4
	C64
)

var dtypes = [...]struct {
	name string
	bits int
}{
	F32: {"F32", 32}, F16: {"F16", 16}, BF16: {"BF16", 16}, F64: {"F64", 64},
	I64: {"I64", 64}, I32: {"I32", 32}, I16: {"I16", 16}, I8: {"I8", 8},
	U64: {"U64", 64}, U32: {"U32", 32}, U16: {"U16", 16}, U8: {"U8", 8}, Bool: {"BOOL", 8},
	F8E4M3: {"F8_E4M3", 8}, F8E5M2: {"F8_E5M2", 8}, F8E4M3FNUZ: {"F8_E4M3FNUZ", 8}, F8E5M2FNUZ: {"F8_E5M2FNUZ", 8},
	F8E8M0: {"F8_E8M0", 8}, F6E2M3: {"F6_E2M3", 6}, F6E3M2: {"F6_E3M2", 6}, F4: {"F4", 4}, C64: {"C64", 64},
}

// ParseDType returns the type that a safetensors header calls name.
func ParseDType(name string) (DType, error) {
	for d, t := range dtypes {
		if DType(d) != Invalid && t.name == name {
			return DType(d), nil
		}
	}
	return Invalid, fmt.Errorf("unknown dtype %.40q", name)
}

// String returns the safetensors name, "BF16".
func (d DType) String() string {
	if d == Invalid || int(d) >= len(dtypes) {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Bits returns the bits of one element.
func (d DType) Bits() int { return dtypes[d].bits }

// Size returns the bytes of one element, 0 if it has less than one: those of F4, F6_E2M3
// and F6_E3M2 share bytes. No such type is Computable.
func (d DType) Size() int { return dtypes[d].bits / 8 }

// Computable reports whether crepe computes with elements of this type.
func (d DType) Computable() bool { return d == F32 || d == F16 || d == BF16 }

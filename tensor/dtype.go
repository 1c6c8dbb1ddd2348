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
	F8E8M0
	C64
)

var dtypes = [...]struct {
	name  string
	bytes int
}{
	F32: {"F32", 4}, F16: {"F16", 2}, BF16: {"BF16", 2}, F64: {"F64", 8},
	I64: {"I64", 8}, I32: {"I32", 4}, I16: {"I16", 2}, I8: {"I8", 1},
	U64: {"U64", 8}, U32: {"U32", 4}, U16: {"U16", 2}, U8: {"U8", 1},
	Bool: {"BOOL", 1}, F8E4M3: {"F8_E4M3", 1}, F8E5M2: {"F8_E5M2", 1},
	F8E8M0: {"F8_E8M0", 1}, C64: {"C64", 8},
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

// Size returns the bytes of one element.
func (d DType) Size() int { return dtypes[d].bytes }

// Computable reports whether crepe computes with elements of this type.
func (d DType) Computable() bool { return d == F32 || d == F16 || d == BF16 }

package gguf

import "fmt"

// Type is the element type of a tensor, by its number in the file.
type Type uint32

// The types that are read. Those with a block of more than one element are
// quantised: a block shares one or more scales.
const (
	F32   Type = 0
	F16   Type = 1
	Q4_0  Type = 2
	Q4_1  Type = 3
	Q5_0  Type = 6
	Q5_1  Type = 7
	Q8_0  Type = 8
	Q2K   Type = 10
	Q3K   Type = 11
	Q4K   Type = 12
	Q5K   Type = 13
	Q6K   Type = 14
	IQ4NL Type = 20
	IQ4XS Type = 23
	BF16  Type = 30
)

// layout is how a type is stored.
type layout struct {
	name   string
	block  int // elements
	bytes  int // of a block
	decode func(dst []float32, src []byte)
}

var layouts = map[Type]layout{
	F32:   {"F32", 1, 4, decodeF32},
	F16:   {"F16", 1, 2, decodeF16},
	BF16:  {"BF16", 1, 2, decodeBF16},
	Q4_0:  {"Q4_0", 32, 18, decodeQ4_0},
	Q4_1:  {"Q4_1", 32, 20, decodeQ4_1},
	Q5_0:  {"Q5_0", 32, 22, decodeQ5_0},
	Q5_1:  {"Q5_1", 32, 24, decodeQ5_1},
	Q8_0:  {"Q8_0", 32, 34, decodeQ8_0},
	Q2K:   {"Q2_K", 256, 84, decodeQ2K},
	Q3K:   {"Q3_K", 256, 110, decodeQ3K},
	Q4K:   {"Q4_K", 256, 144, decodeQ4K},
	Q5K:   {"Q5_K", 256, 176, decodeQ5K},
	Q6K:   {"Q6_K", 256, 210, decodeQ6K},
	IQ4NL: {"IQ4_NL", 32, 18, decodeIQ4NL},
	IQ4XS: {"IQ4_XS", 256, 136, decodeIQ4XS},
}

// unread are the names of types that are known and not read, for errors.
var unread = map[Type]string{
	9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
	21: "IQ3_S", 22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
	29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
}

// readable is said in errors.
const readable = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL or IQ4_XS"

// String returns llama.cpp's name of t, "Q4_K".
func (t Type) String() string {
	if l, ok := layouts[t]; ok {
		return l.name
	}
	if name, ok := unread[t]; ok {
		return name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Block returns the elements that are stored together, 1 if t is not quantised.
func (t Type) Block() int { return layouts[t].block }

// RowBytes returns the bytes of a row of n elements, a multiple of t.Block().
func (t Type) RowBytes(n int) int { return n / layouts[t].block * layouts[t].bytes }

// Dequantize writes the elements of src, whole blocks of type t, to dst. It
// computes in float32, with one rounding an operation, as the Python library
// gguf does: the results are the same bits.
func (t Type) Dequantize(dst []float32, src []byte) {
	if len(src) != t.RowBytes(len(dst)) || len(dst)%t.Block() != 0 {
		panic(fmt.Sprintf("gguf: Dequantize of %d bytes of %v to %d elements", len(src), t, len(dst)))
	}
	layouts[t].decode(dst, src)
}

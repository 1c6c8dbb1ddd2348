// Command gemm generates the micro-kernels of the matrix products and of
// attention. From the folder gen:
//
//	go run ./gemm -out ../gemm_amd64.s -stubs ../gemm_stubs_amd64.go -pkg kernel
//
// The vector registers are assigned by hand: the micro-kernels use nearly all
// of them, and raw instruction bytes need their numbers.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!purego")

	for _, bfloat := range []bool{false, true} {
		mulTile(avx512, 12, bfloat, false)
		mulTile(avx512, 12, bfloat, true)
		mulTile(avx512, 6, bfloat, false)
	}
	mulTile(avx2, 6, false, false)
	storeFence()

	for _, v := range []*vector{&avx512, &avx2} {
		transposeF32(*v)
		transposeBF16(*v)
		transposeF16(*v)
		maxRow(*v)
		expRow(*v)
		mulAddLoop(*v, false)
		readLoop(*v)
	}
	mulAddLoop(avx512, true)
	for _, v := range []vector{avx512, avx2} {
		for tokens := 1; tokens <= dotsTokens; tokens++ {
			for _, k := range dotsKinds {
				dots(v, tokens, k.name, k.bytes(v), false, k.load)
			}
		}
	}
	for tokens := 1; tokens <= dotsTokens; tokens++ {
		dots(avx512, tokens, "Pairs", avx512.bytes(), true, dotsKinds[0].load)
	}
	for _, e := range expanders {
		for tokens := 1; tokens <= dotsTokens; tokens++ {
			packedDots(e, tokens)
		}
	}
	book := codebookData()
	for _, bits := range []int{8, 4} {
		for tokens := 1; tokens <= dotsTokens; tokens++ {
			integerDots(bits, tokens, false, book)
			integerDots(bits, tokens, true, book)
		}
	}
	expandWords(avx512)
	expandWords(avx2)
	expandIntegers()
	Generate()
}

// vector is a vector width.
type vector struct {
	name  string // suffix of the generated functions
	lanes int    // float32 in a register
	all   []reg.VecPhysical
}

var avx512 = vector{"AVX512", 16, []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
	reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
	reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
	reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}}

var avx2 = vector{"AVX2", 8, []reg.VecPhysical{
	reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
	reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
}}

// bytes is the width of a register.
func (v vector) bytes() int { return 4 * v.lanes }

// wide reports AVX-512.
func (v vector) wide() bool { return v.lanes == 16 }

// function starts a generated function.
func function(name, signature string, doc ...string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc...)
}

// zero clears a vector register.
func (v vector) zero(r reg.VecPhysical) {
	if v.wide() {
		VPXORD(r, r, r)
	} else {
		VXORPS(r, r, r)
	}
}

func mem(base reg.Register, disp int) operand.Mem {
	return operand.Mem{Base: base, Disp: disp}
}

func indexed(base, index reg.Register) operand.Mem {
	return operand.Mem{Base: base, Index: index, Scale: 1}
}

func ret() {
	VZEROUPPER()
	RET()
}

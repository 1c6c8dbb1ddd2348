//go:build !amd64 || purego

package kernel

import "math"

func widenBF16Blocks(dst []float32, src []uint16) int      { return 0 }
func widenF16Blocks(dst []float32, src []uint16) int       { return 0 }
func narrowBF16Blocks(dst []uint16, src []float32) int     { return 0 }
func addSquaresBlocks(acc []float64, x []float32) int      { return 0 }
func addBlocks(dst, x []float32) int                       { return 0 }
func sumSquaresBlocks(x []float32) (float64, int)          { return 0, 0 }
func scaleMulBlocks(dst, x, w []float32, r float32) int    { return 0 }
func siluMulBlocks(dst, gate, up []float32) int            { return 0 }
func ropeBlocks(a, b, cos, sin []float32) int              { return 0 }
func maxBlocks(x []float32) (float32, int)                 { return float32(math.Inf(-1)), 0 }
func sumExpBlocks(x []float32, top float32) (float64, int) { return 0, 0 }

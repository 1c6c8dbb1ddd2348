//go:build !amd64 || purego

package kernel

func capRow(s []float32, scale, limit float32)        { capRowGeneric(s, scale, limit) }
func scaleTo(dst, src []float32, f float32)           { scaleToGeneric(dst, src, f) }
func addScaledBlocks(dst, x []float32, f float32) int { return 0 }
func addProductBlocks(dst, x, y []float32) int        { return 0 }
func sigmoidMulBlocks(dst, gate []float32) int        { return 0 }
func geluMulBlocks(dst, gate, up []float32) int       { return 0 }

// No tile here holds bfloat16.
func pairBF16(dst, even, odd []float32) int                         { panic("kernel: no bfloat16") }
func expBF16(dst []uint16, s []float32, scale, top float32) float32 { panic("kernel: no bfloat16") }

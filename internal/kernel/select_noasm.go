//go:build !amd64 || purego

package kernel

func atLeastBlocks(dst []uint64, x []float32, t float32) (count, n int) { return 0, 0 }
func countBelowBlocks(x []float32, t float32) (int, int)                { return 0, 0 }
func maxBitsBlocks(x []float32) (uint32, int)                           { return 0, 0 }
func keepBestBlocks(dst []uint64, x []float32, keep, m int) int         { return 0 }
func zeroUnset16Blocks(x []uint16, bits []uint64) int                   { return 0 }
func zeroUnset32Blocks(x []float32, bits []uint64) int                  { return 0 }

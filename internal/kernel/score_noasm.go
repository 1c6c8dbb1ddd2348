//go:build !amd64 || purego

package kernel

func absSumsBlocks(col []float64, lanes *[AbsSumLanes]float64, x []float32, ahead int) int { return 0 }
func absSumsBF16Blocks(col []float64, lanes *[AbsSumLanes]float64, x []uint16, ahead int) int {
	return 0
}
func absBlocks(dst, x []float32, ahead int) int                                             { return 0 }
func absBF16Blocks(dst []float32, x []uint16, ahead int) int                                { return 0 }
func scaleAbsBlocks(dst, x, s []float32) (uint32, int)                                      { return 0, 0 }
func relativeImportanceBlocks(dst, x, b, s []float32, a float32) int                        { return 0 }
func relativeImportanceBF16Blocks(dst []float32, x []uint16, b, s []float32, a float32) int { return 0 }
func crossBlocks(dst []float32, c *Cross, r int) bool                                       { return false }

func excessBlocks(lanes *[ExcessT][ExcessX][ExcessLanes]float32, t, x []float32, stride, n int) bool {
	return false
}

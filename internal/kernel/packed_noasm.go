//go:build !amd64 || purego

package kernel

func expand16(dst []uint16, mask []byte, values []uint16) int {
	return expandGeneric(dst, mask, values)
}

func expandInt8(dst []uint16, mask []byte, values []int8, scale float32) {
	scaleExpand(dst, mask, values, scale, narrowBF16)
}

func packedFor(*dotter) []packedKernel { return nil }

var shuffles [1][1]byte

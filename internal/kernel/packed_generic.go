package kernel

func expand16(dst []uint16, mask []byte, values []uint16) int {
	return expandGeneric(dst, mask, values)
}

package kernel

func subScaledGeneric(dst, x []float32, e float32) {
	for i, v := range x {
		dst[i] -= float32(e * v)
	}
}

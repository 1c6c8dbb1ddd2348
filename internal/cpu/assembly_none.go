//go:build !amd64 || purego

package cpu

// assembly reports that this build contains the assembly kernels.
const assembly = false

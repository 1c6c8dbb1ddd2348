// Package sysinfo asks the operating system about memory and disks.
package sysinfo

// Memory returns the bytes of memory that new work may take now without
// swapping, or 0 where the system does not say.
func Memory() int64 { return memory() }

// Budget returns the memory that a run takes unless it is told how much: three
// quarters of Memory, or 0 where the system does not say.
func Budget() int64 { return Memory() / 4 * 3 }

// PeakRSS returns the largest resident size of this process so far in bytes,
// or 0 where the system does not say.
func PeakRSS() int64 { return peakRSS() }

// FreeBytes returns the free space for this user on the file system of a folder.
func FreeBytes(dir string) (int64, error) { return freeBytes(dir) }

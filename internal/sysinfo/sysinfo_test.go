package sysinfo

import (
	"runtime"
	"testing"
)

func TestFiguresArePlausible(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skipf("%s does not say", runtime.GOOS)
	}
	if m := Memory(); m < 64<<20 || m > 1<<50 {
		t.Errorf("Memory() = %d bytes", m)
	}
	before := PeakRSS()
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	if after := PeakRSS(); before < 1<<20 || after < 64<<20 || after < before {
		t.Errorf("PeakRSS() = %d, then %d bytes with 64 MiB of ballast", before, after)
	}
	runtime.KeepAlive(ballast)
}

package cuda_test

import (
	"os"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/engine/reference"
)

// device opens the first device, or skips the test.
func device(t *testing.T) *cuda.Device {
	t.Helper()
	d, err := cuda.Open(cuda.Options{})
	if err != nil {
		if os.Getenv("CREPE_TEST_CUDA") != "" {
			t.Fatal(err)
		}
		t.Skipf("no CUDA device: %v", err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestOperationsEqualReference(t *testing.T) {
	d := device(t)
	t.Logf("%s, driver of CUDA %d", d.Info.Name, d.Info.Driver)
	for _, compute := range []engine.Compute{engine.F32, engine.BF16} {
		t.Run(compute.String(), func(t *testing.T) {
			e := cuda.New(d, compute)
			t.Log(e.ID())
			s := enginetest.Suite{Engine: e, Reference: reference.New(compute)}
			if compute == engine.BF16 {
				s.Attention, s.Gram = 0x1p-8, 0x1p-8
			}
			s.Run(t)
		})
	}
}

// The code that is embedded is that of the sources beside it.
func TestKernelsAreCompiled(t *testing.T) {
	ptx, err := os.ReadFile("kernels/kernels.ptx")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := firstLine(ptx), "// sources: "+sourcesHash(t); got != want {
		t.Errorf("kernels.ptx says %q, want %q: run tools/cuda/ptx.py", got, want)
	}
	if !strings.Contains(string(ptx), "\n.version 8.4\n.target sm_80\n") {
		t.Error("kernels.ptx is not PTX 8.4 for sm_80, which drivers of CUDA 12.4 and cards of 8.0 take")
	}
}

package hub

import (
	"context"
	"errors"
	"os"
	"time"
)

// errLocked is what tryLock returns while another process holds the lock.
var errLocked = errors.New("locked by another process")

// acquire takes the lock file that huggingface_hub takes for the same blob, and
// waits for it, which it tells by calling waiting. The system releases it when the process ends. On a file system
// without locks it is not taken: checksums still catch a mixed-up download.
func acquire(ctx context.Context, path string, waiting func()) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for tries := 0; ; tries++ {
		err := tryLock(f)
		if err == nil || errors.Is(err, errors.ErrUnsupported) {
			return func() { f.Close() }, nil
		}
		if err != errLocked {
			f.Close()
			return nil, err
		}
		if tries == 0 {
			waiting()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

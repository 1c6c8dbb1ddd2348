//go:build !windows && (!unix || solaris || aix)

package hub

import (
	"errors"
	"os"
)

// tryLock knows no lock on this system.
func tryLock(*os.File) error { return errors.ErrUnsupported }

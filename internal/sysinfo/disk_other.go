//go:build !linux && !darwin && !freebsd && !windows

package sysinfo

import "errors"

func freeBytes(dir string) (int64, error) { return 0, errors.ErrUnsupported }

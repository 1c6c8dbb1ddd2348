package main

import (
	"runtime"

	"github.com/crepe-llm/crepe/provenance"
)

// version is "0.1.0 (3f2a91c, go1.26.8, linux/amd64)".
func version() string {
	v := provenance.Version + " ("
	if revision := provenance.Revision(); revision != "" {
		v += revision + ", "
	}
	return v + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

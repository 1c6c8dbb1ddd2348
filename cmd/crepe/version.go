package main

import (
	"runtime"
	"runtime/debug"

	"github.com/crepe-llm/crepe/prune"
)

// version is "0.1.0 (3f2a91c, go1.26.8, linux/amd64)".
func version() string {
	v := prune.Version + " ("
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 7 {
				v += s.Value[:7] + ", "
			}
		}
	}
	return v + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

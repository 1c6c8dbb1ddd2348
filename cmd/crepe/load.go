package main

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/session"
)

// options are those of a session that reports on stderr.
func (a *app) options(compute string, memory int64) session.Options {
	return session.Options{Compute: compute, Memory: memory, Progress: a.meter.update, Warn: a.warn}
}

// open opens MODEL, which it downloads from the hub if it is an id.
func (a *app) open(ctx context.Context, name string, opt session.Options) (*session.Session, error) {
	s, err := session.Open(ctx, name, opt)
	a.meter.finish()
	return s, err
}

// checkCompute checks --compute before a model is opened.
func checkCompute(name string) error {
	if _, _, err := session.ParseCompute(name); err != nil {
		return usageError{fmt.Errorf("--compute: %q, want f32, bf16 or auto", name)}
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// interrupts are the signals that end the program: Ctrl-C and SIGTERM.
type interrupts struct {
	signals chan os.Signal
	taken   chan struct{} // closed when a command sees to them itself
	cancel  context.CancelFunc
}

type interruptsKey struct{}

// interruptible returns a context that the first Ctrl-C cancels. Work that does
// not stop soon after is cut off: a run can be resumed from what is on disk at any
// moment, so nothing is gained by waiting for a long step.
func interruptible(parent context.Context, stderr io.Writer) (context.Context, func()) {
	const patience = 600 * time.Millisecond
	ctx, cancel := context.WithCancel(parent)
	in := &interrupts{signals: make(chan os.Signal, 2), taken: make(chan struct{}), cancel: cancel}
	signal.Notify(in.signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
			return
		case <-in.taken:
			return
		case <-in.signals:
		}
		cancel()
		select {
		case <-done:
		case <-in.signals:
			os.Exit(exitInterrupted)
		case <-time.After(patience):
			fmt.Fprintln(stderr, "\ncrepe: interrupted; finished work is kept: run the same command again to continue (prune: with --resume)")
			os.Exit(exitInterrupted)
		}
	}()
	return context.WithValue(ctx, interruptsKey{}, in), func() {
		signal.Stop(in.signals)
		close(done)
		cancel()
	}
}

// takeInterrupts leaves the signals of ctx to the caller. cancel cancels ctx.
func takeInterrupts(ctx context.Context) (signals <-chan os.Signal, cancel context.CancelFunc) {
	in := ctx.Value(interruptsKey{}).(*interrupts)
	close(in.taken)
	return in.signals, in.cancel
}

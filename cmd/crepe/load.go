package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
)

// options are those of a session that reports on stderr.
func (a *app) options(compute string, memory int64) session.Options {
	return session.Options{Compute: compute, Device: a.device, Memory: memory, Progress: a.meter.update, Warn: a.warn, Notice: a.note}
}

// addDevice declares the flags that say what computes.
func (a *app) addDevice(c *cobra.Command) {
	fl := c.Flags()
	fl.Var((*deviceFlag)(&a.device.Name), "device", "what computes: cpu, cuda, cuda:N (the N-th GPU, from 0 on), or auto (a GPU if one can be used)")
	fl.Var((*bytesFlag)(&a.device.Memory), "device-memory", "budget of the GPU's memory, such as 20GiB (default: what is free)")
	complete(c, map[string][]string{"device": {session.Auto, "cpu", "cuda"}})
}

// checkDevice refuses a budget of memory that nothing takes.
func (a *app) checkDevice(given func(flag string) bool) error {
	if _, card, _, err := session.ParseDevice(a.device.Name); err != nil || card {
		return err
	}
	return noEffect(given, "the processor computes, within --memory; with a GPU want --device cuda too", "device-memory")
}

// deviceFlag is a session.Device's name.
type deviceFlag string

func (f *deviceFlag) String() string { return string(*f) }
func (f *deviceFlag) Type() string   { return "string" }

func (f *deviceFlag) Set(s string) error {
	if _, _, _, err := session.ParseDevice(s); err != nil || s == "" {
		return errors.New("want auto, cpu, cuda or cuda:N")
	}
	*f = deviceFlag(s)
	return nil
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

// machineFlags are those of commands that run a model: with what it computes.
type machineFlags struct {
	compute string
	threads int
	memory  bytesFlag
}

// add declares the flags. beyond says what becomes of what exceeds the memory.
func (f *machineFlags) add(fl *pflag.FlagSet, beyond string) {
	fl.StringVar(&f.compute, "compute", recipe.DefaultCompute, "type of matrix products' inputs: f32, bf16, or auto (bf16 if checkpoint and processor support it)")
	fl.IntVar(&f.threads, "threads", 0, "cores to use (0: all)")
	fl.Var(&f.memory, "memory", "memory budget, such as 16GiB"+beyond+" (default 3/4 of the free memory)")
}

func (f *machineFlags) check() error { return cmp.Or(setThreads(f.threads), checkCompute(f.compute)) }

// Package cpu says which instruction sets the kernels may use, as variables.
//
// They are set once, before main, to what processor and operating system
// support, or to less if the environment variable CREPE_CPU asks for it:
//
//	CREPE_CPU=avx512|avx2|generic
//
// The build tag purego leaves all assembly out; then only generic exists.
package cpu

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/cpu"
)

// What the kernels may use. A kernel tests the one variable that covers every
// set that it contains. They change only by Use, in tests.
var (
	AVX2        bool // AVX2, FMA and F16C
	AVX512      bool // AVX2 above, and AVX-512 F, VL, BW and DQ
	AVX512BF16  bool // AVX512 above, and AVX512_BF16
	AVX512VBMI2 bool // AVX512 above, and AVX512_VBMI2
)

// Level is a rung of the ladder that CREPE_CPU names; each contains those below.
type Level uint8

// The levels. AVX512_BF16 and AVX512_VBMI2 are no levels of their own: they are used
// at LevelAVX512 where the processor has them.
const (
	LevelGeneric Level = iota
	LevelAVX2
	LevelAVX512
)

var levelNames = [...]string{"generic", "avx2", "avx512"}

// String returns the name that CREPE_CPU takes.
func (l Level) String() string {
	if int(l) >= len(levelNames) {
		return fmt.Sprintf("Level(%d)", uint8(l))
	}
	return levelNames[l]
}

// detected is what this build on this processor can do.
var detected = detect()

type features struct{ avx2, avx512, avx512bf16, avx512vbmi2 bool }

// detect asks x/sys/cpu, which reports a vector set only if the operating
// system saves its registers.
func detect() features {
	if !assembly {
		return features{}
	}
	var f features
	x := cpu.X86
	f.avx2 = x.HasAVX2 && x.HasFMA && x.HasF16C
	f.avx512 = f.avx2 && x.HasAVX512F && x.HasAVX512VL && x.HasAVX512BW && x.HasAVX512DQ
	f.avx512bf16 = f.avx512 && x.HasAVX512BF16
	f.avx512vbmi2 = f.avx512 && x.HasAVX512VBMI2
	return f
}

func (f features) level() Level {
	switch {
	case f.avx512:
		return LevelAVX512
	case f.avx2:
		return LevelAVX2
	}
	return LevelGeneric
}

var envError = initialise(os.Getenv("CREPE_CPU"))

// initialise sets the variables to the level called name; the empty name and
// a wrong one stand for the highest.
func initialise(name string) error {
	level, err := parse(name, detected.level())
	set(level)
	return err
}

// parse returns the level called name. The empty name is highest, and so is,
// with an error, a name that is unknown or above highest.
func parse(name string, highest Level) (Level, error) {
	if name == "" {
		return highest, nil
	}
	for l, s := range levelNames {
		if s != name {
			continue
		}
		if Level(l) > highest {
			return highest, fmt.Errorf("CREPE_CPU=%s: this processor or build has %s at most", name, highest)
		}
		return Level(l), nil
	}
	return highest, fmt.Errorf("CREPE_CPU=%q: want %s", name, strings.Join(levelNames[:], ", "))
}

// EnvError returns what is wrong with CREPE_CPU, nil if nothing. The highest
// level is in use then.
func EnvError() error { return envError }

// Current returns the level in use.
func Current() Level {
	return features{avx2: AVX2, avx512: AVX512}.level()
}

// Levels returns all levels that Use takes here, lowest first.
func Levels() []Level {
	all := []Level{LevelGeneric, LevelAVX2, LevelAVX512}
	return all[:detected.level()+1]
}

// Use switches to level and returns the function that switches back. It is for
// tests: nothing may compute meanwhile. It panics if level is not in Levels.
func Use(level Level) (restore func()) {
	if level > detected.level() {
		panic(fmt.Sprintf("cpu: Use: level %s, have %s at most", level, detected.level()))
	}
	was := features{AVX2, AVX512, AVX512BF16, AVX512VBMI2}
	set(level)
	return func() {
		AVX2, AVX512, AVX512BF16, AVX512VBMI2 = was.avx2, was.avx512, was.avx512bf16, was.avx512vbmi2
	}
}

func set(level Level) {
	AVX2 = level >= LevelAVX2
	AVX512 = level >= LevelAVX512
	AVX512BF16 = AVX512 && detected.avx512bf16
	AVX512VBMI2 = AVX512 && detected.avx512vbmi2
}

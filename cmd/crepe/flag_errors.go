package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/corpus"
	"github.com/crepe-llm/crepe/recipe"
)

// flagError says what is wrong with the flags of c, in place of pflag's words.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		err = fmt.Errorf("unknown flag --%.60s", name)
		if unknown.GetSpecifiedShortnames() != "" {
			err = fmt.Errorf("unknown flag -%.60s", name)
		} else if near := nearest(name, c.Flags()); near != "" {
			err = fmt.Errorf("%w; did you mean --%s?", err, near)
		}
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		if want, ok := wanted[f.Value.Type()]; ok {
			err = fmt.Errorf("--%s: %.60q, want %s", f.Name, invalid.GetValue(), want)
		} else {
			err = fmt.Errorf("--%s: %w", f.Name, invalid.Unwrap())
		}
	}
	return usageError{fmt.Errorf("%w\nsee %s --help", err, c.CommandPath())}
}

// wanted says what flags of pflag's own types take.
var wanted = map[string]string{
	"int": "a whole number", "int64": "a whole number", "uint64": "a whole number of at least 0",
	"float64": "a number", "bool": "true or false",
}

// nearest returns the flag that name is most likely to be meant for, "" if none is
// near: of few edits, or one that begins with it.
func nearest(name string, fl *pflag.FlagSet) string {
	best, least := "", len(name)/3+2 // edits at which two names are no longer alike
	fl.VisitAll(func(f *pflag.Flag) {
		d := edits(name, f.Name)
		if len(name) > 2 && strings.HasPrefix(f.Name, name) {
			d = 1
		}
		if !f.Hidden && d < least {
			best, least = f.Name, d
		}
	})
	return best
}

// edits returns how many letters must be put in, left out or replaced to make b of
// a (Levenshtein's distance), both cut to 60 bytes.
func edits(a, b string) int {
	a, b = a[:min(len(a), 60)], b[:min(len(b), 60)]
	row := make([]int, len(b)+1) // of the beginning of a so far to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal, row[j+1] = row[j+1], min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// within checks a flag's number. Zero is a number here, and no default.
func within(flag string, v, least, most int) error {
	switch {
	case v < least:
		return usageError{fmt.Errorf("--%s: %d, want at least %d", flag, v, least)}
	case v > most:
		return usageError{fmt.Errorf("--%s: %d, want at most %d", flag, v, most)}
	}
	return nil
}

// checkUsed refuses flags of a run that have no effect, or warns of those of a
// calibration text where the method reads none: scripts that try several methods
// give them to all.
func (a *app) checkUsed(r recipe.Recipe, given func(flag string) bool) error {
	resolved, err := r.Resolve()
	if err != nil {
		return err
	}
	warn := func(why string, flags ...string) {
		for _, flag := range flags {
			if given(flag) {
				a.warn("--%s has no effect: %s", flag, why)
			}
		}
	}
	none := r.Eval.Source == "none"
	if none && given("windows") {
		return usageError{errors.New("--windows has no effect: --eval is none")}
	}
	if !resolved.Method.NeedsData {
		why := "method " + r.Method + " reads no calibration text"
		warn(why, "calibration", "samples", "seed")
		if none {
			warn(why+", and --eval is none", "seqlen")
		}
	} else if src, err := corpus.Parse(r.Calibration.Source); err == nil && src.Tokens() {
		warn("the windows of "+src.String()+" are taken in their order", "seed")
	}
	return nil
}

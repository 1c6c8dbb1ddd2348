package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/corpus"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
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
	"float64": "a number", "bool": "true or false", "duration": "a time such as 90s or 10m",
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

// mayBeEmpty are the flags whose empty value means something: no text, or, beside
// --recipe, that what the recipe says does not hold.
var mayBeEmpty = map[string]func(fl *pflag.FlagSet) bool{
	"prompt": always, "system": always, "title": always,
	"skip": overRecipe, "compare": overRecipe, "allocate": overRecipe, "permute": overRecipe,
	"refine": overRecipe, "update": overRecipe, "rebuild": overRecipe,
}

func always(*pflag.FlagSet) bool        { return true }
func overRecipe(fl *pflag.FlagSet) bool { return fl.Changed("recipe") }

// checkEmpty refuses a flag with an empty value, as a script gives it whose variable
// is not set: it would be taken for a flag that is not given.
func checkEmpty(fl *pflag.FlagSet) (err error) {
	fl.Visit(func(f *pflag.Flag) {
		if may := mayBeEmpty[f.Name]; f.Value.String() == "" && (may == nil || !may(fl)) && err == nil {
			err = usageError{fmt.Errorf("--%s: empty, want a value or no such flag", f.Name)}
		}
	})
	return err
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

// noEffect refuses the first of flags that is given.
func noEffect(given func(flag string) bool, why string, flags ...string) error {
	for _, flag := range flags {
		if given(flag) {
			return usageError{fmt.Errorf("--%s has no effect: %s", flag, why)}
		}
	}
	return nil
}

// checkUsed refuses flags, those of --kind among them, that have no effect on a run
// by r.
func checkUsed(r recipe.Recipe, kinds kindFlag, given func(flag string) bool) error {
	resolved, err := r.Resolve()
	if err != nil {
		return err
	}
	none := r.Eval.Source == "none"
	if none {
		err = noEffect(given, "--eval is none", "windows")
	}
	if err == nil && !resolved.Method.NeedsData {
		why := "method " + r.Method + " reads no calibration text"
		err = noEffect(given, why, "calibration", "samples", "seed")
		if err == nil && none {
			err = noEffect(given, why+", and --eval is none", "seqlen")
		}
	} else if err == nil {
		err = checkSeed(r.Calibration, given)
	}
	if err == nil {
		err = checkFactors(resolved, kinds, given)
	}
	return err
}

// checkFactors refuses flags of parameters whose factor is 0 wherever they are read.
func checkFactors(r recipe.Resolved, kinds kindFlag, given func(flag string) bool) error {
	zero := func(p param.Values, factor string) bool { return p[factor] == 0. }
	for _, p := range recipe.Parameters() {
		if p.Factor == "" {
			continue
		}
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			if _, asked := kinds[kind][p.Name]; asked && zero(r.Kinds[kind], p.Factor) {
				return noEffect(given, fmt.Sprintf("%s of %s is 0, by which its %s is multiplied", p.Factor, kind, p.Name), "kind")
			}
		}
		used := !zero(r.Params, p.Factor)
		for _, of := range r.Kinds {
			used = used || !zero(of, p.Factor)
		}
		if !used {
			flag := strings.ReplaceAll(p.Factor, "_", "-")
			if err := noEffect(given, "--"+flag+" is 0", p.Flag()); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkSeed refuses a seed for a text of which nothing is sampled.
func checkSeed(c recipe.Calibration, given func(flag string) bool) error {
	src, err := corpus.Parse(c.Source)
	if err != nil || !src.Tokens() {
		return nil // what is wrong with it is said when it is read
	}
	return noEffect(given, "the windows of "+src.String()+" are taken in their order", "seed")
}

// checkFused refuses --fused split for models without a fused matrix.
func checkFused(r recipe.Recipe, given func(flag string) bool, models ...*model.Model) error {
	if r.Fused == recipe.DefaultFused {
		return nil
	}
	for _, m := range models {
		for b := range m.Blocks() {
			if slices.ContainsFunc(m.Linears(b), func(l model.LinearSpec) bool { return l.Parts != nil }) {
				return nil
			}
		}
	}
	return noEffect(given, "the model has no fused matrices", "fused")
}

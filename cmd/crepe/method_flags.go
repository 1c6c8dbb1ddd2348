package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/recipe"
)

// methodFlags are the flags of a recipe's steps and of the parameters of their
// methods, as the packages of the methods declare them.
type methodFlags struct {
	methods map[string]*string // by step
	params  param.Values       // those given
	kinds   kindFlag
}

// add declares the flags of each step: its own, then its parameters'.
func (f *methodFlags) add(fl *pflag.FlagSet) {
	defaults := map[string]string{"method": recipe.DefaultMethod, "allocate": allocate.Uniform.Name}
	f.methods, f.params, f.kinds = map[string]*string{}, param.Values{}, kindFlag{}
	for _, s := range recipe.Steps() {
		f.methods[s.Key] = fl.String(s.Key, defaults[s.Key], s.Doc+": "+strings.Join(s.Names(), ", "))
		for _, p := range recipe.Parameters() {
			if p.Step.Key != s.Key {
				continue
			}
			flag := fl.VarPF(&paramFlag{p.Spec, f.params}, p.Flag(), "", paramUsage(p))
			if p.Kind() == "switch" {
				flag.NoOptDefVal = "true"
			}
		}
		if s.Key == "method" {
			fl.Var(f.kinds, "kind", "parameters of the method for one kind of Linear, such as v_proj:beta=0,power=0.5; may be repeated")
		}
	}
}

// merge puts what the flags of fl say into r.
func (f *methodFlags) merge(r recipe.Recipe, fl *pflag.FlagSet) recipe.Recipe {
	for _, s := range recipe.Steps() {
		name := f.methods[s.Key]
		switch {
		case name == nil || !fl.Changed(s.Key):
		case *name == "":
			r = r.Without(s)
		default:
			*s.Field(&r) = *name
		}
	}
	for name, v := range f.params {
		r = r.With(name, v)
	}
	for kind, values := range f.kinds {
		for name, v := range values {
			r = r.WithKind(kind, name, v)
		}
	}
	return r
}

// complete tells the shell the values of the flags.
func (f *methodFlags) complete(c *cobra.Command) {
	values := map[string][]string{}
	for _, s := range recipe.Steps() {
		values[s.Key] = s.Names()
	}
	for _, p := range recipe.Parameters() {
		for _, v := range p.Choices {
			values[p.Flag()] = append(values[p.Flag()], fmt.Sprint(v))
		}
	}
	complete(c, values)
}

// paramFlag is the flag of a parameter. It puts its value into to.
type paramFlag struct {
	spec param.Spec
	to   param.Values
}

func (f *paramFlag) Set(text string) error {
	v, err := f.spec.Parse(text)
	if err == nil {
		f.to[f.spec.Name] = v
	}
	return err
}

func (f *paramFlag) String() string {
	if v, ok := f.to[f.spec.Name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// Type is what help calls the value.
func (f *paramFlag) Type() string {
	return map[string]string{"number": "float", "whole number": "int", "text": "string", "switch": "bool"}[f.spec.Kind()]
}

// kindFlag is the flag of parameters by kind of Linear.
type kindFlag map[string]param.Values

func (f kindFlag) Set(text string) error {
	kind, list, _ := strings.Cut(text, ":")
	for _, one := range strings.Split(list, ",") {
		name, value, ok := strings.Cut(one, "=")
		if !ok || kind == "" {
			return errors.New("want KIND:PARAMETER=VALUE, such as v_proj:beta=0")
		}
		i := slices.IndexFunc(recipe.Parameters(), func(p recipe.Parameter) bool { return p.Name == name && p.Step.Key == "method" })
		if i < 0 {
			return fmt.Errorf("%s: no method has such a parameter", name)
		}
		if _, twice := f[kind][name]; twice {
			return fmt.Errorf("%s: given twice for %s", name, kind)
		}
		v, err := recipe.Parameters()[i].Parse(value)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f[kind] = f[kind].With(name, v)
	}
	return nil
}

func (f kindFlag) String() string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(f)) {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(f[kind])) {
			list = append(list, fmt.Sprintf("%s=%v", name, f[kind][name]))
		}
		all = append(all, kind+":"+strings.Join(list, ","))
	}
	return strings.Join(all, " ")
}

// Type is what help calls the value.
func (f kindFlag) Type() string { return "kind" }

// paramUsage is the help text of p's flag: "owl: half the range of the blocks'
// shares, 0 to 1 (default 0.08)".
func paramUsage(p recipe.Parameter) string {
	var readers, defaults []string
	for _, r := range p.Readers {
		readers = append(readers, r.Method)
		defaults = append(defaults, fmt.Sprintf("%s %v", r.Method, r.Default))
	}
	text := strings.Join(readers, ", ") + ": " + p.Doc
	switch {
	case p.Kind() == "switch":
		return text
	case p.OneDefault():
		defaults = []string{fmt.Sprint(p.Default)}
	}
	return fmt.Sprintf("%s, %s (default %s)", text, p.Allowed(), strings.Join(defaults, ", "))
}

// methodHelp lists the methods of a step.
func methodHelp(key string) string {
	var b strings.Builder
	for _, s := range recipe.Steps() {
		if s.Key != key {
			continue
		}
		for _, m := range s.Methods() {
			fmt.Fprintf(&b, "  %-12s %s\n", m.Name, m.Doc)
		}
	}
	return b.String()
}

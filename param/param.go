// Package param declares the parameters of methods. A method declares each of
// its parameters once, beside itself; flags, recipe keys, checks, help, shell
// completion and documentation come from the declaration.
package param

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Spec declares a parameter. Methods of one kind may share a name: the parameter
// then has one meaning and the same bounds for all, but a default for each.
type Spec struct {
	Name    string // the key in a recipe: "owl_lambda"
	Doc     string // what it is, in a line
	Default any    // a float64, int, string or bool, which says what its values are

	Min, Max float64 // bounds of a number, both allowed; Max 0: none above
	Choices  []any   // the values there are; nil: all within the bounds

	// Factor is the number by which the method multiplies what the parameter makes:
	// where it is 0, the parameter has no effect. "": there is none.
	Factor string
}

// Flag returns the name of the parameter's flag: "owl-lambda".
func (s Spec) Flag() string { return strings.ReplaceAll(s.Name, "_", "-") }

// Kind returns what a value is: "number", "whole number", "text" or "switch".
func (s Spec) Kind() string {
	switch s.Default.(type) {
	case float64:
		return "number"
	case int:
		return "whole number"
	case string:
		return "text"
	case bool:
		return "switch"
	}
	panic(fmt.Sprintf("param: %s: default %v, want a float64, int, string or bool", s.Name, s.Default))
}

// Allowed says in words which values are allowed: "0 to 1", "at least 1",
// "mean or median".
func (s Spec) Allowed() string {
	switch {
	case len(s.Choices) > 0:
		var list []string
		for _, c := range s.Choices {
			list = append(list, fmt.Sprint(c))
		}
		last := len(list) - 1
		if last == 0 {
			return list[0]
		}
		return strings.Join(list[:last], ", ") + " or " + list[last]
	case s.Kind() == "switch":
		return "true or false"
	case s.Kind() == "text":
		return "any text"
	case s.Max == 0:
		return fmt.Sprintf("at least %v", s.Min)
	}
	return fmt.Sprintf("%v to %v", s.Min, s.Max)
}

// Parse reads a value as a person writes it.
func (s Spec) Parse(text string) (any, error) {
	var v any = text
	var err error
	switch s.Default.(type) {
	case float64:
		v, err = strconv.ParseFloat(text, 64)
	case int:
		v, err = strconv.Atoi(text)
	case bool:
		v, err = strconv.ParseBool(text)
	}
	if err != nil {
		return nil, fmt.Errorf("want a %s", s.Kind())
	}
	return v, nil
}

// Convert returns a value as YAML and JSON decode it in the type of the
// parameter's values.
func (s Spec) Convert(v any) (any, error) {
	switch s.Default.(type) {
	case float64:
		switch v := v.(type) {
		case float64:
			return v, nil
		case int:
			return float64(v), nil
		}
	case int:
		switch v := v.(type) {
		case int:
			return v, nil
		case float64:
			if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
				return int(v), nil
			}
		}
	case string:
		if v, ok := v.(string); ok {
			return v, nil
		}
	case bool:
		if v, ok := v.(bool); ok {
			return v, nil
		}
	}
	return nil, fmt.Errorf("%s: %v, want a %s, %s", s.Name, v, s.Kind(), s.Allowed())
}

// Check returns an error unless v is an allowed value of the parameter's type.
func (s Spec) Check(v any) error {
	ok := true
	switch v := v.(type) {
	case float64:
		ok = v >= s.Min && (s.Max == 0 && !math.IsInf(v, 0) || v <= s.Max)
	case int:
		ok = float64(v) >= s.Min && (s.Max == 0 || float64(v) <= s.Max)
	}
	if len(s.Choices) > 0 {
		ok = slices.Contains(s.Choices, v)
	}
	switch {
	case ok:
		return nil
	case s.Kind() == "text":
		return fmt.Errorf("%s: %q, want %s", s.Name, v, s.Allowed())
	}
	return fmt.Errorf("%s: %v, want %s", s.Name, v, s.Allowed())
}

// Values are parameters by name, each in the type of its Spec's Default.
type Values map[string]any

// Defaults returns the default of each parameter.
func Defaults(specs []Spec) Values {
	v := Values{}
	for _, s := range specs {
		v[s.Name] = s.Default
	}
	return v
}

// Check returns an error if one of the parameters is not in v or not allowed.
// What else is in v is not looked at.
func Check(specs []Spec, v Values) error {
	for _, s := range specs {
		if _, ok := v[s.Name]; !ok {
			return fmt.Errorf("%s: none, want %s", s.Name, s.Allowed())
		}
		if _, err := s.Convert(v[s.Name]); err != nil {
			return err
		}
		if err := s.Check(v[s.Name]); err != nil {
			return err
		}
	}
	return nil
}

// With returns a copy of v in which name has another value.
func (v Values) With(name string, value any) Values {
	c := make(Values, len(v)+1)
	for k, old := range v {
		c[k] = old
	}
	c[name] = value
	return c
}

// Only returns the values of the parameters that specs declare.
func (v Values) Only(specs []Spec) Values {
	c := Values{}
	for _, s := range specs {
		c[s.Name] = v[s.Name]
	}
	return c
}

// Number returns a float64.
func (v Values) Number(name string) float64 { return get[float64](v, name) }

// Whole returns an int.
func (v Values) Whole(name string) int { return get[int](v, name) }

// Text returns a string.
func (v Values) Text(name string) string { return get[string](v, name) }

// On returns a switch.
func (v Values) On(name string) bool { return get[bool](v, name) }

// get panics where a method reads what it did not declare.
func get[T any](v Values, name string) T {
	t, ok := v[name].(T)
	if !ok {
		panic(fmt.Sprintf("param: %s is %v (%T), want a %T", name, v[name], v[name], t))
	}
	return t
}

// Declared returns the spec called name, if there is one.
func Declared(specs []Spec, name string) (Spec, bool) {
	i := slices.IndexFunc(specs, func(s Spec) bool { return s.Name == name })
	if i < 0 {
		return Spec{}, false
	}
	return specs[i], true
}

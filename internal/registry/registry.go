// Package registry finds a method by the name a user gives it.
package registry

import (
	"fmt"
	"strings"
)

// Names returns the names of all, in their order.
func Names[M any](all []M, name func(M) string) []string {
	var names []string
	for _, m := range all {
		names = append(names, name(m))
	}
	return names
}

// Lookup returns the one of all that is called want. The error of another name
// says what kind of thing it is not, and lists those there are.
func Lookup[M any](kind, want string, all []M, name func(M) string) (M, error) {
	for _, m := range all {
		if name(m) == want {
			return m, nil
		}
	}
	var none M
	return none, fmt.Errorf("unknown %s %q, want one of %s", kind, want, strings.Join(Names(all, name), ", "))
}

// Package registry keeps the methods of a kind and finds one by the name a user
// gives it.
package registry

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Registry is the methods of one kind, in their order.
type Registry[M any] struct {
	kind string
	name func(M) string

	mu  sync.RWMutex
	all []M
}

// New returns a registry of methods that are a kind of thing, as in "unknown
// refinement". name returns a method's.
func New[M any](kind string, name func(M) string, all ...M) *Registry[M] {
	return &Registry[M]{kind: kind, name: name, all: all}
}

// All returns the methods.
func (r *Registry[M]) All() []M {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.all)
}

// Names returns the names of all, in their order.
func (r *Registry[M]) Names() []string {
	var names []string
	for _, m := range r.All() {
		names = append(names, r.name(m))
	}
	return names
}

// Lookup returns the one that is called want. The error of another name says
// what kind of thing it is not, and lists those there are.
func (r *Registry[M]) Lookup(want string) (M, error) {
	for _, m := range r.All() {
		if r.name(m) == want {
			return m, nil
		}
	}
	var none M
	return none, fmt.Errorf("unknown %s %q, want one of %s", r.kind, want, strings.Join(r.Names(), ", "))
}

// Add adds m, whose name must be new, and returns what takes it out again.
func (r *Registry[M]) Add(m M) (remove func()) {
	name := r.name(m)
	if _, err := r.Lookup(name); err == nil || name == "" {
		panic(fmt.Sprintf("registry: %s %q, want a name that is new", r.kind, name))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(slices.Clip(r.all), m)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = slices.DeleteFunc(slices.Clone(r.all), func(o M) bool { return r.name(o) == name })
	}
}

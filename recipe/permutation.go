package recipe

import (
	"errors"
	"fmt"

	"github.com/crepe-llm/crepe/permute"
)

// permutation returns how columns are put in order for N:M; nil: they are not.
func (r Recipe) permutation() (*permute.Method, error) {
	if r.Permute == "" {
		if r.LSAFast {
			return nil, fmt.Errorf("lsa fast: only permutation %s has a fast form, and nothing is permuted", permute.LSA.Name)
		}
		return nil, nil
	}
	m, err := permute.Lookup(r.Permute)
	switch {
	case err != nil:
		return nil, fmt.Errorf("permute: %w", err)
	case r.Pattern == "":
		return nil, errors.New("permute: " + m.Name + ", but without a pattern N:M no order of the columns is better than another")
	case r.LSAFast && m.Name != permute.LSA.Name:
		return nil, fmt.Errorf("lsa fast: only permutation %s has a fast form, not %s", permute.LSA.Name, m.Name)
	}
	return &m, nil
}

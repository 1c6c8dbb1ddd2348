package grid

import (
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/eval/task"
)

// What a store cannot hold is refused, not shown as a perplexity of 0.
func TestDamagedRecords(t *testing.T) {
	const result = `{"perplexity":2.718281828459045,"nll":1,"windows":2,"tokens":6,"seqlen":3}`
	read := func(kind, value string) (err error) {
		g := &runner{kept: map[string]map[string]string{kind: {"k": value}}}
		switch kind {
		case perplexityKind:
			_, err = get(g, kind, "k", new(measured))
		case taskKind:
			_, err = get(g, kind, "k", new(task.Result))
		case searchKind:
			_, err = get(g, kind, "k", new(found))
		case pointKind:
			_, err = get(g, kind, "k", new(stored))
		case speedKind:
			_, err = get(g, kind, "k", new(raced))
		}
		return err
	}
	for _, c := range []struct{ kind, value, want string }{
		{perplexityKind, `{"result":` + result + `,"sparsity":0.5,"seconds":1}`, ""},
		{perplexityKind, `{}`, "damaged"},
		{perplexityKind, `{"result":` + result + `,"sparsity":1.5,"seconds":1}`, "damaged"},
		{perplexityKind, `{"result":` + strings.Replace(result, "2.7", "3.7", 1) + `}`, "damaged"},
		{perplexityKind, `{"result":` + strings.Replace(result, `"nll":1`, `"nll":1e300`, 1) + `}`, "damaged"},
		{perplexityKind, `{"result":` + strings.Replace(result, `"nll":1`, `"nll":1e999`, 1) + `}`, "perplexity of cell k"},
		{perplexityKind, `[`, "perplexity of cell k"},
		{taskKind, `{"task":"rte","documents":3,"acc":0.5,"acc_norm":0.5}`, ""},
		{taskKind, `{"task":"rte","documents":3,"acc":5,"acc_norm":0.5}`, "damaged"},
		{taskKind, `{}`, "damaged"},
		{searchKind, `{"best":{"alpha":1,"beta":0,"gamma":0,"kernel":3,"gini":0.5},"seconds":1}`, ""},
		{searchKind, `{"best":{"alpha":0,"beta":0,"gamma":0,"kernel":3,"gini":0.5},"seconds":1}`, "damaged"},
		{searchKind, `{"best":{"alpha":-1,"beta":2,"gamma":0,"kernel":3,"gini":0.5},"seconds":1}`, "damaged"},
		{pointKind, `{"stored_bytes":5,"kl":0.1,"result":` + result + `}`, ""},
		{pointKind, `{"stored_bytes":5,"kl":null,"result":` + result + `}`, ""},
		{pointKind, `{"stored_bytes":0,"kl":0.1,"result":` + result + `}`, "damaged"},
		{pointKind, `{"stored_bytes":5,"kl":-1,"result":` + result + `}`, "damaged"},
		{pointKind, `{"stored_bytes":5,"kl":0.1}`, "damaged"},
		{speedKind, `{"decode":5,"dense_decode":4}`, ""},
		{speedKind, `{"decode":5}`, "damaged"},
	} {
		if err := read(c.kind, c.value); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s: %v, want %q", c.kind, c.value, err, c.want)
		}
	}
}

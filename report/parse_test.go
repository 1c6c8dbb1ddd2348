package report

import (
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// FuzzResult reads any text as what a command printed, and shows it.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"model":"m","compute":"f32","data":"text","perplexity":12.5,"windows":3,"against":{"name":"d","kl":{"mean":0.25}},"tasks":{"results":[{"task":"rte"}]}}`))
	f.Add([]byte(`{"prompt":"a","text":"b","ids":[1],"against":{"model":"n","text":"c"},"same_tokens":0}`))
	f.Add([]byte(`{"model":"m","against":null,"linears":[{"name":"model.layers.0.q","equal":0.5},{}]}`))
	f.Add([]byte(`{"methods":["ria"],"patterns":["50%"],"models":[{"model":"m","dense":{"method":"dense","perplexity":{"perplexity":null}},"cells":[{"method":"ria","pattern":"1:0"},{}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var item Item
		var err error
		golden.Ceiling(t, uint64(256<<10+1000*len(text)), func() { item, err = parseResult(text) })
		if err == nil {
			Build("", []Item{item})
		}
	})
}

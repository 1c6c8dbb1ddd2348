package talk

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/chat"
	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/model"
)

const demoDir = "../demo/data/model"

// load returns the demo model as one to talk to, with a Generator of the same.
func load(t *testing.T) (*Model, *generate.Generator) {
	t.Helper()
	inv, err := checkpoint.Open(demoDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	g, err := generate.New(m, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := batch.New(m, batch.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	talking, err := Load("demo", m.Config.Vocab, m.Config.MaxPositions, inv.ReadFile, demoDir, inv.Config())
	if err != nil {
		t.Fatal(err)
	}
	talking.Runner = r
	return talking, g
}

// What is said piece by piece is the text of what a Generator generates, and it
// ends where it is told to.
func TestContinue(t *testing.T) {
	m, g := load(t)
	prompt, err := m.Encode("In 2009 , the album")
	if err != nil {
		t.Fatal(err)
	}
	var ids []int32
	if _, err := g.Run(t.Context(), prompt, generate.Options{MaxTokens: 40}, func(id int32) error {
		ids = append(ids, id)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want, text := "", generate.NewText(m.Tokenizer, prompt)
	for _, id := range ids {
		part, err := text.Add(id)
		if err != nil {
			t.Fatal(err)
		}
		want += part
	}
	say := func(opt Options) (string, []int32, Ending) {
		t.Helper()
		got, ids := "", []int32(nil)
		end, err := m.Continue(t.Context(), prompt, opt, func(p Piece) error {
			got += p.Text
			if p.Token != nil {
				ids = append(ids, p.Token.ID)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, ids, end
	}
	got, said, end := say(Options{MaxTokens: 40})
	if got != want || len(said) != 40 || end.Stopped || end.Tokens != 40 || end.Prompt != len(prompt) {
		t.Errorf("%q, %+v, want %q", got, end, want)
	}
	stop := want[len(want)/2 : len(want)/2+8]
	got, _, end = say(Options{MaxTokens: 40, Stop: []string{"nowhere", stop}})
	if got != want[:strings.Index(want, stop)] || !end.Stopped || end.Tokens >= 40 {
		t.Errorf("until %q: %q, %+v", stop, got, end)
	}
	// The model's own end, and none.
	m.Stop = append(m.Stop, ids[5])
	if _, said, end := say(Options{MaxTokens: 40}); len(said) != 5 || !end.Stopped {
		t.Errorf("at a stop token: %d tokens, %+v", len(said), end)
	}
	if _, said, end := say(Options{MaxTokens: 40, Endless: true}); len(said) != 40 || end.Stopped {
		t.Errorf("endless: %d tokens, %+v", len(said), end)
	}
	own := errors.New("own")
	if _, err := m.Continue(t.Context(), prompt, Options{}, func(Piece) error { return own }); err != own {
		t.Errorf("an error of yield: %v", err)
	}
}

func TestBaseModel(t *testing.T) {
	m, _ := load(t)
	if _, err := m.EncodeChat([]chat.Message{{Role: "user", Content: "x"}}, chat.Options{}); !errors.Is(err, chat.ErrNoTemplate) {
		t.Errorf("%v, want ErrNoTemplate", err)
	}
}

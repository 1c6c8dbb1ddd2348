package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/talk"
)

// chatTemplate is that of the demo model, which has none of its own.
const chatTemplate = `{{ bos_token }}{% for m in messages %}{% if 'refuse' in m.content %}{{ raise_exception('no ' ~ m.role) }}{% endif %}{{ m.role }} : {{ m.content }}
{% endfor %}{% if add_generation_prompt %}{{ prefix }}assistant :{% endif %}`

// newModel returns the demo model, with a chat template or as it is.
func newModel(t *testing.T, template bool, opt batch.Options) *talk.Model {
	t.Helper()
	dir := t.TempDir()
	const demo = "../demo/data/model"
	entries, err := os.ReadDir(demo)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(demo, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, e.Name()), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if template {
		if err := os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(chatTemplate), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := session.Open(t.Context(), dir, session.Options{Compute: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Talk(opt)
	if err != nil {
		t.Fatal(err)
	}
	m.Name = "tiny"
	t.Cleanup(func() { m.Runner.Close(context.Background()); s.Close() })
	return m
}

// start serves models and returns the address.
func start(t *testing.T, opt Options, models ...*talk.Model) string {
	t.Helper()
	h := httptest.NewServer(New(models, opt))
	t.Cleanup(h.Close)
	return h.URL
}

// post sends a body and returns the status and what came.
func post(t *testing.T, url, body string) (int, []byte) {
	t.Helper()
	r, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, data
}

// full is an answer of either kind, or a piece of a stream.
type full struct {
	ID, Object, Model string
	Choices           []struct {
		Index    int
		Text     string
		Message  struct{ Role, Content string }
		Delta    struct{ Role, Content string }
		Finish   string `json:"finish_reason"`
		Logprobs *struct {
			Tokens  []string
			Token   []float64            `json:"token_logprobs"`
			TopAll  []map[string]float64 `json:"top_logprobs"`
			Offsets []int                `json:"text_offset"`
			Content []struct {
				Token   string
				Logprob float64
				Bytes   []int
				Top     []struct {
					Token   string
					Logprob float64
				} `json:"top_logprobs"`
			}
		}
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
		Details    struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
	Error *struct{ Message, Type, Param, Code string }
}

func ask(t *testing.T, url, body string) full {
	t.Helper()
	status, data := post(t, url, body)
	var f full
	if err := json.Unmarshal(data, &f); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d, %v: %s", body, status, err, data)
	}
	return f
}

// stream asks with "stream" and returns the pieces.
func askStream(t *testing.T, url, body string) []full {
	t.Helper()
	status, data := post(t, url, strings.Replace(body, "{", `{"stream": true, `, 1))
	if status != http.StatusOK {
		t.Fatalf("%s: %d: %s", body, status, data)
	}
	var all []full
	lines := strings.Split(strings.TrimSuffix(string(data), "\n\n"), "\n\n")
	for i, line := range lines {
		text, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			t.Fatalf("%q is no event", line)
		}
		if i == len(lines)-1 {
			if text != "[DONE]" {
				t.Errorf("the last event is %q", text)
			}
			break
		}
		var f full
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// joined returns the text of a stream, and why it ended.
func joined(all []full) (text, finish string) {
	for _, f := range all {
		for _, c := range f.Choices {
			text += c.Text + c.Delta.Content
			if c.Finish != "" {
				finish = c.Finish
			}
		}
	}
	return text, finish
}

func TestCompletions(t *testing.T) {
	url := start(t, Options{}, newModel(t, true, batch.Options{})) + "/v1/completions"
	a := ask(t, url, `{"model": "tiny", "prompt": "In 2009 , the album", "temperature": 0, "max_tokens": 30}`)
	if len(a.Choices) != 1 || a.Object != "text_completion" || a.Model != "tiny" || !strings.HasPrefix(a.ID, "cmpl-") {
		t.Fatalf("%+v", a)
	}
	text := a.Choices[0].Text
	if u := a.Usage; a.Choices[0].Finish != "length" || u.Completion != 30 || u.Prompt < 5 || u.Total != u.Prompt+30 {
		t.Errorf("%+v, usage %+v", a.Choices[0], a.Usage)
	}
	pieces := askStream(t, url, `{"prompt": "In 2009 , the album", "temperature": 0, "max_tokens": 30, "stream_options": {"include_usage": true}}`)
	if got, finish := joined(pieces); got != text || finish != "length" {
		t.Errorf("streamed %q, %s, want %q", got, finish, text)
	}
	last := pieces[len(pieces)-1]
	if last.Usage == nil || last.Usage.Completion != 30 || last.Usage.Details.Cached != 0 || len(last.Choices) != 0 {
		t.Errorf("the last piece: %+v", last)
	}

	const long = `{"prompt": "The river is one of the most important of the country , and the city is on it .", "max_tokens": 1}`
	if first, second := ask(t, url, long), ask(t, url, long); second.Usage.Details.Cached != first.Usage.Prompt-1 {
		t.Errorf("the same prompt again: %+v, want all but one cached", second.Usage)
	}

	// Stop texts, wherever they begin and end.
	for from := 1; from < len(text)-12; from += 11 {
		stop := text[from : from+9]
		want := text[:strings.Index(text, stop)]
		q := fmt.Sprintf(`{"prompt": "In 2009 , the album", "temperature": 0, "max_tokens": 30, "stop": ["no such", %q]}`, stop)
		if a := ask(t, url, q); a.Choices[0].Text != want || a.Choices[0].Finish != "stop" {
			t.Errorf("stop %q: %q, %s, want %q", stop, a.Choices[0].Text, a.Choices[0].Finish, want)
		}
		if got, finish := joined(askStream(t, url, q)); got != want || finish != "stop" {
			t.Errorf("stop %q, streamed: %q, %s, want %q", stop, got, finish, want)
		}
	}

	// Tokens for a prompt, several prompts, several choices.
	b := ask(t, url, `{"prompt": [[0, 53, 260], [0, 53]], "temperature": 1, "seed": 5, "max_tokens": 8, "n": 2}`)
	if len(b.Choices) != 4 || b.Usage.Prompt != 5 || b.Usage.Completion != 32 || b.Choices[0].Text == b.Choices[1].Text {
		t.Errorf("%+v, %+v", b.Choices, b.Usage)
	}
	for i, c := range b.Choices {
		if c.Index != i {
			t.Errorf("choice %d has index %d", i, c.Index)
		}
	}
	one := ask(t, url, `{"prompt": [0, 53, 260], "temperature": 1, "seed": 5, "max_tokens": 8}`)
	if one.Choices[0].Text != b.Choices[0].Text {
		t.Errorf("the same seed: %q and %q", one.Choices[0].Text, b.Choices[0].Text)
	}
	if two := ask(t, url, `{"prompt": [0, 53, 260], "temperature": 1, "seed": 6, "max_tokens": 8}`); two.Choices[0].Text == one.Choices[0].Text {
		t.Error("another seed gives the same text")
	}
	for _, q := range []string{`"top_k": 1`, `"top_p": 1e-9`} {
		c := ask(t, url, `{"prompt": "In 2009 , the album", "temperature": 2, "max_tokens": 30, `+q+`}`)
		if c.Choices[0].Text != text {
			t.Errorf("%s: %q, want the greedy text", q, c.Choices[0].Text)
		}
	}
}

// Log-probabilities are a distribution's, and the greedy token is the first.
func TestLogprobs(t *testing.T) {
	m := newModel(t, true, batch.Options{})
	url := start(t, Options{}, m)
	a := ask(t, url+"/v1/completions", `{"prompt": "In 2009 , the album", "temperature": 0, "max_tokens": 9, "logprobs": 3}`).Choices[0]
	if l := a.Logprobs; len(l.Tokens) != 9 || len(l.Token) != 9 || len(l.TopAll) != 9 || strings.Join(l.Tokens, "") != a.Text || l.Offsets[1] != len([]rune(l.Tokens[0])) {
		t.Fatalf("%+v of %q", l, a.Text)
	}
	for i, top := range a.Logprobs.TopAll {
		if len(top) != 3 || top[a.Logprobs.Tokens[i]] != a.Logprobs.Token[i] {
			t.Errorf("token %d: %v, want 3 with %q %v", i, top, a.Logprobs.Tokens[i], a.Logprobs.Token[i])
		}
		sum := 0.0
		for _, p := range top {
			sum += math.Exp(p)
		}
		if !(sum > 0 && sum <= 1) {
			t.Errorf("token %d: the likeliest have %v together", i, sum)
		}
	}
	offsets := []int{}
	for _, f := range askStream(t, url+"/v1/completions", `{"prompt": "In 2009 , the album", "temperature": 0, "max_tokens": 9, "logprobs": 0}`) {
		if l := f.Choices[0].Logprobs; l != nil {
			offsets = append(offsets, l.Offsets...)
		}
	}
	if !slices.Equal(offsets, a.Logprobs.Offsets) {
		t.Errorf("streamed offsets %v, want %v", offsets, a.Logprobs.Offsets)
	}
	c := ask(t, url+"/v1/chat/completions", `{"messages": [{"role": "user", "content": "the album"}], "temperature": 0, "max_tokens": 6, "logprobs": true, "top_logprobs": 2}`).Choices[0]
	if len(c.Logprobs.Content) != 6 {
		t.Fatalf("%+v", c.Logprobs)
	}
	text := ""
	for _, l := range c.Logprobs.Content {
		text += l.Token
		if len(l.Top) != 2 || l.Top[0].Token != l.Token || l.Top[0].Logprob != l.Logprob || l.Top[1].Logprob > l.Logprob || len(l.Bytes) != len(l.Token) {
			t.Errorf("%+v", l)
		}
	}
	if text != c.Message.Content {
		t.Errorf("tokens %q, content %q", text, c.Message.Content)
	}
}

func TestChat(t *testing.T) {
	m := newModel(t, true, batch.Options{})
	url := start(t, Options{MaxTokens: 20}, m)
	a := ask(t, url+"/v1/chat/completions", `{"model": "tiny", "messages": [{"role": "system", "content": "A game"}, {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}], "temperature": 0}`)
	want := ask(t, url+"/v1/completions", `{"prompt": "system : A game\nuser : one\ntwo\nassistant :", "temperature": 0, "max_tokens": 20}`)
	c := a.Choices[0]
	if c.Message.Content != want.Choices[0].Text || c.Message.Role != "assistant" || a.Object != "chat.completion" || a.Usage.Prompt != want.Usage.Prompt {
		t.Errorf("%+v, usage %+v, want %+v, %+v", c, a.Usage, want.Choices, want.Usage)
	}
	pieces := askStream(t, url+"/v1/chat/completions", `{"messages": [{"role": "developer", "content": "A game"}, {"role": "user", "content": "one\ntwo"}], "temperature": 0, "max_completion_tokens": 20}`)
	if text, finish := joined(pieces); text != c.Message.Content || finish != "length" || pieces[0].Choices[0].Delta.Role != "assistant" || pieces[0].Object != "chat.completion.chunk" {
		t.Errorf("streamed %q, %s, first %+v", text, finish, pieces[0])
	}
	b := ask(t, url+"/v1/chat/completions", `{"messages": [{"role": "user", "content": "x"}], "temperature": 0, "max_tokens": 4, "chat_template_kwargs": {"prefix": "the "}}`)
	want = ask(t, url+"/v1/completions", `{"prompt": "user : x\nthe assistant :", "temperature": 0, "max_tokens": 4}`)
	if b.Choices[0].Message.Content != want.Choices[0].Text {
		t.Errorf("with a template's variable: %q, want %q", b.Choices[0].Message.Content, want.Choices[0].Text)
	}
}

// What is wrong with a request is said in OpenAI's shape, and costs nothing.
func TestErrors(t *testing.T) {
	m := newModel(t, true, batch.Options{})
	url := start(t, Options{MaxPrompt: 50}, m)
	long := strings.Repeat("word ", 100)
	deep := strings.Repeat("[", 100_000)
	msg := `"messages": [{"role": "user", "content": "x"}]`
	for _, c := range []struct {
		path, body string
		status     int
		want       string // in the error's text, code or param
	}{
		{"completions", `{`, 400, "not the JSON"},
		{"completions", ``, 400, "not the JSON"},
		{"completions", `{} {}`, 400, "after its JSON"},
		{"completions", `{"prompt": ` + deep, 400, "not the JSON"},
		{"completions", "\xff\xfe", 400, "not the JSON"},
		{"completions", `{"prompt": 5}`, 400, "prompt: want"},
		{"completions", `{"prompt": [5.5]}`, 400, "prompt: want"},
		{"completions", `{"prompt": [-1]}`, 400, "token -1"},
		{"completions", `{"prompt": [99999]}`, 400, "token 99999"},
		{"completions", `{"prompt": []}`, 400, "want a prompt"},
		{"completions", `{"prompt": [[]]}`, 400, "no tokens"},
		{"completions", `{}`, 400, "want a prompt"},
		{"completions", `{"prompt": "x", "max_tokens": 0}`, 400, "max_tokens"},
		{"completions", `{"prompt": "x", "max_tokens": "5"}`, 400, "max_tokens"},
		{"completions", `{"prompt": "x", "max_tokens": 1e30}`, 400, "max_tokens"},
		{"completions", `{"prompt": "x", "temperature": -1}`, 400, "temperature"},
		{"completions", `{"prompt": "x", "temperature": 2.5}`, 400, "temperature"},
		{"completions", `{"prompt": "x", "temperature": 1e999}`, 400, "temperature"},
		{"completions", `{"prompt": "x", "top_p": 0}`, 400, "top_p"},
		{"completions", `{"prompt": "x", "top_k": -2}`, 400, "top k"},
		{"completions", `{"prompt": "x", "stop": ""}`, 400, "stop"},
		{"completions", `{"prompt": "x", "stop": {"a": 1}}`, 400, "string"},
		{"completions", `{"prompt": "x", "n": 17}`, 400, "n"},
		{"completions", `{"prompt": ["x", "y"], "n": 16}`, 400, "too many"},
		{"completions", `{"prompt": "x", "logprobs": 21}`, 400, "logprobs"},
		{"completions", `{"prompt": "x", "echo": true}`, 400, "echo"},
		{"completions", `{"prompt": "x", "best_of": 2}`, 400, "best_of"},
		{"completions", `{"prompt": "x", "nonsense": 1}`, 400, "nonsense"},
		{"completions", `{"prompt": "x", "presence_penalty": 1}`, 400, "penalties"},
		{"completions", `{"prompt": "x", "logit_bias": {"5": 1}}`, 400, "logit_bias"},
		{"completions", `{"prompt": "x", "stream_options": {}}`, 400, "stream_options"},
		{"completions", `{"prompt": "x", "model": "other"}`, 404, "model_not_found"},
		{"completions", `{"prompt": "` + long + `"}`, 400, "context_length_exceeded"},
		{"completions", `{"prompt": "` + strings.Repeat("x", maxBody) + `"}`, 413, "MiB"},
		{"chat/completions", `{"messages": []}`, 400, "messages"},
		{"chat/completions", `{"messages": [{"role": "user", "content": "` + long + `"}]}`, 400, "context_length_exceeded"},
		{"chat/completions", `{"messages": [{"role": "tool", "content": "x"}]}`, 400, "role"},
		{"chat/completions", `{"messages": [{"role": "user", "content": {"a": 1}}]}`, 400, "content"},
		{"chat/completions", `{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}`, 400, "text only"},
		{"chat/completions", `{"messages": [{"role": "user", "content": "refuse"}]}`, 400, "no user"},
		{"chat/completions", `{"tools": [{}], ` + msg + `}`, 400, "tools"},
		{"chat/completions", `{"response_format": {"type": "json_object"}, ` + msg + `}`, 400, "response_format"},
		{"chat/completions", `{"top_logprobs": 3, ` + msg + `}`, 400, "top_logprobs"},
		{"chat/completions", `{"logprobs": true, "top_logprobs": 21, ` + msg + `}`, 400, "top_logprobs"},
		{"embeddings", `{}`, 404, "there is no POST"},
	} {
		status, data := post(t, url+"/v1/"+c.path, c.body)
		var f full
		if err := json.Unmarshal(data, &f); err != nil || f.Error == nil || status != c.status || f.Error.Type == "" ||
			!strings.Contains(f.Error.Message+f.Error.Code+f.Error.Param, c.want) {
			t.Errorf("%.80s: %d %.300s, want %d and %s", c.body, status, data, c.status, c.want)
		}
	}
	r, err := http.Post(url+"/v1/completions", "text/plain", strings.NewReader(`{"prompt": "x"}`))
	if err != nil || r.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a form of another page: %v, %v", r.StatusCode, err)
	}
	r.Body.Close()
	if n := m.Runner.Counts(); n.Requests > 0 {
		t.Errorf("%d requests reached the model", n.Requests)
	}
}

func TestBaseModel(t *testing.T) {
	url := start(t, Options{}, newModel(t, false, batch.Options{}))
	status, data := post(t, url+"/v1/chat/completions", `{"messages": [{"role": "user", "content": "x"}]}`)
	if status != 400 || !bytes.Contains(data, []byte("no_chat_template")) || !bytes.Contains(data, []byte("base model")) {
		t.Errorf("%d %s", status, data)
	}
	if a := ask(t, url+"/v1/completions", `{"prompt": "x", "max_tokens": 2}`); a.Usage.Completion != 2 {
		t.Errorf("%+v", a)
	}
}

func TestKeyAndOtherPaths(t *testing.T) {
	url := start(t, Options{APIKey: "secret"}, newModel(t, true, batch.Options{}))
	get := func(path, key string) (int, string) {
		req, err := http.NewRequest("GET", url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		data, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(data)
	}
	for _, c := range []struct {
		path, key string
		status    int
		want      string
	}{
		{"/health", "", 200, "ok"},
		{"/", "", 200, "<!doctype html>"},
		{"/v1/models", "", 401, "invalid_api_key"},
		{"/v1/models", "secre", 401, "invalid_api_key"},
		{"/v1/models", "secret", 200, `"id":"tiny"`},
		{"/v1/models/tiny", "secret", 200, `"object":"model"`},
		{"/v1/models/tony", "secret", 404, "model_not_found"},
		{"/metrics", "", 401, "invalid_api_key"},
		{"/metrics", "secret", 200, `crepe_texts_running{model="tiny"} 0`},
		{"/v1/completions", "secret", 404, "there is no GET"},
		{"/nothing", "secret", 404, "there is no GET /nothing"},
	} {
		if status, data := get(c.path, c.key); status != c.status || !strings.Contains(data, c.want) {
			t.Errorf("%s with %q: %d %.200s, want %d and %s", c.path, c.key, status, data, c.status, c.want)
		}
	}
	if status, _ := post(t, url+"/v1/completions", `{"prompt": "x"}`); status != 401 {
		t.Errorf("without a key: %d", status)
	}
}

func TestTimeoutAndQueue(t *testing.T) {
	m := newModel(t, true, batch.Options{Texts: 1, Queue: 1})
	url := start(t, Options{Timeout: 300 * time.Millisecond}, m) + "/v1/completions"
	const endless = `{"prompt": "x", "max_tokens": 500, "ignore_eos": true, "temperature": 0}`
	status, data := post(t, url, endless)
	if status == 200 {
		t.Skip("500 tokens in 300 ms")
	}
	if status != 504 || !bytes.Contains(data, []byte(`"code":"timeout"`)) {
		t.Errorf("%d %s", status, data)
	}
	// In a stream, what has come has come; the error follows.
	status, data = post(t, url, strings.Replace(endless, "{", `{"stream": true, `, 1))
	if lines := strings.Split(string(data), "\n\n"); status != 200 || len(lines) < 4 || !strings.Contains(lines[len(lines)-2], `"code":"timeout"`) || strings.Contains(string(data), "[DONE]") {
		t.Errorf("%d %s", status, data)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for range 4 { // one runs, one waits
		wg.Go(func() {
			if status, data := post(t, url, endless); status == 429 && bytes.Contains(data, []byte("queue_full")) {
				mu.Lock()
				refused++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if refused == 0 {
		t.Error("no request was refused")
	}
}

// TestManyClients answers 64 clients, of which some are slow, some hang up in the
// middle and some send nonsense; the others get what they get alone.
func TestManyClients(t *testing.T) {
	m := newModel(t, true, batch.Options{Exact: true, Texts: 8, Chunk: 32})
	h := httptest.NewServer(New([]*talk.Model{m}, Options{}))
	url := h.URL + "/v1/completions"
	bodies := make([]string, 12)
	for i := range bodies {
		bodies[i] = fmt.Sprintf(`{"prompt": "%s %d", "max_tokens": %d, "temperature": %d, "seed": 3, "logprobs": 1}`,
			strings.Repeat("The river of the city ", i%4), i, 5+2*i, i%2)
	}
	want := make([]string, len(bodies))
	for i, b := range bodies {
		a := ask(t, url, b)
		want[i] = fmt.Sprint(a.Choices[0].Text, a.Choices[0].Logprobs.Token)
	}
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			draws := splitmix.Source(uint64(i))
			body := bodies[i%len(bodies)]
			switch i % 8 {
			case 0: // hangs up
				hangUp(t, h.Listener.Addr().String(), body, int(draws.Next()%5))
			case 1: // is slow
				slow(t, h.Listener.Addr().String(), body)
			case 2: // sends nonsense
				noise := make([]byte, 200)
				for i := range noise {
					noise[i] = byte(draws.Next())
				}
				if status, _ := post(t, url, string(noise)); status != 400 {
					t.Errorf("nonsense: %d", status)
				}
			default:
				a := ask(t, url, body)
				if got := fmt.Sprint(a.Choices[0].Text, a.Choices[0].Logprobs.Token); got != want[i%len(bodies)] {
					t.Errorf("client %d: %s, alone %s", i, got, want[i%len(bodies)])
				}
			}
		})
	}
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	h.Close()
	for range 300 {
		if n := m.Runner.Counts(); n.Running == 0 && n.Waiting == 0 && runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%+v, %d goroutines, before %d:\n%s", m.Runner.Counts(), runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

// request writes a streaming request to a connection of its own.
func request(t *testing.T, address, body string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return nil
	}
	body = strings.Replace(body, "{", `{"stream": true, `, 1)
	fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return c
}

// hangUp reads so many lines of an answer and goes.
func hangUp(t *testing.T, address, body string, lines int) {
	c := request(t, address, body)
	if c == nil {
		return
	}
	r := bufio.NewReader(c)
	for range lines {
		if _, err := r.ReadString('\n'); err != nil {
			t.Errorf("before it hung up: %v", err)
		}
	}
	c.Close()
}

// slow reads an answer bit by bit.
func slow(t *testing.T, address, body string) {
	c := request(t, address, body)
	if c == nil {
		return
	}
	defer c.Close()
	text, buf := "", make([]byte, 64)
	for !strings.Contains(text, "[DONE]") {
		n, err := c.Read(buf)
		text += string(buf[:n])
		if err != nil {
			t.Errorf("%v after %q", err, text)
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// No web page reads a server of this machine by a name of its own.
func TestRebinding(t *testing.T) {
	m := newModel(t, true, batch.Options{})
	for _, c := range []struct {
		key, host string
		status    int
	}{
		{"", "evil.example", 403}, {"", "evil.example:80", 403}, {"", "127.0.0.1.evil.example", 403},
		{"", "localhost:8080", 200}, {"", "127.0.0.1", 200}, {"", "[::1]:9", 200}, {"key", "proxy.example", 200},
	} {
		url := start(t, Options{APIKey: c.key}, m)
		req, err := http.NewRequest("GET", url+"/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != c.status {
			t.Errorf("%s with key %q: %d, want %d", c.host, c.key, r.StatusCode, c.status)
		}
	}
}

// Serve ends when it is told to, after what it has begun.
func TestServeEnds(t *testing.T) {
	m := newModel(t, true, batch.Options{})
	for _, patient := range []bool{true, false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		stop, stopNow := context.WithCancel(t.Context())
		cut, cutNow := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- New([]*talk.Model{m}, Options{}).Serve(stop, cut, l) }()
		c := request(t, l.Addr().String(), `{"prompt": "x", "max_tokens": 200, "ignore_eos": true, "temperature": 0}`)
		r := bufio.NewReader(c)
		for line := ""; !strings.HasPrefix(line, "data: "); {
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		stopNow()
		if !patient {
			cutNow()
		}
		rest, _ := io.ReadAll(io.LimitReader(r, 1<<20))
		c.Close()
		if whole := bytes.Contains(rest, []byte("[DONE]")); patient && !whole {
			t.Errorf("cut off: %s", rest)
		}
		if err := <-ended; patient && err != nil || !patient && err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("patient %v: %v", patient, err)
		}
		if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
			t.Error("it still takes connections")
		}
		cutNow()
	}
}

// Whatever is sent, the server answers with JSON and goes on.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{
		`{"prompt": "x", "max_tokens": 1, "stop": ["a"], "logprobs": 2}`, `{"prompt": [[1, 2]], "n": 2, "max_tokens": 1}`,
		`{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 1}`,
		`{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"prefix": {"a": [1]}}, "max_tokens": 1}`,
	} {
		f.Add(s)
	}
	var once sync.Once
	var s *Server
	f.Fuzz(func(t *testing.T, body string) {
		once.Do(func() {
			s = New([]*talk.Model{{Name: "none", Window: 8, NoChat: errors.New("none")}}, Options{})
		})
		for _, q := range []asked{new(completion), new(chatCompletion)} {
			r := httptest.NewRequest("POST", "/", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			if err := readRequest(httptest.NewRecorder(), r, q); err != nil {
				asAPIError(err)
				continue
			}
			if _, err := q.base().options(s, 1); err != nil {
				asAPIError(err)
			}
		}
	})
}

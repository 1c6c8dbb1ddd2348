package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/chat"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/talk"
)

// common are the parameters that both kinds of completions have.
type common struct {
	Model         string   `json:"model"`
	MaxTokens     *int     `json:"max_tokens"`
	Temperature   *float64 `json:"temperature"`
	TopP          *float64 `json:"top_p"`
	TopK          *int     `json:"top_k"`
	Seed          *int64   `json:"seed"`
	Stop          texts    `json:"stop"`
	N             *int     `json:"n"`
	Stream        bool     `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	IgnoreEOS bool `json:"ignore_eos"` // as in vLLM: the model's own end does not end it

	// Refused where they ask for something.
	FrequencyPenalty float64                    `json:"frequency_penalty"`
	PresencePenalty  float64                    `json:"presence_penalty"`
	LogitBias        map[string]json.RawMessage `json:"logit_bias"`

	// Without meaning for the answer.
	User             json.RawMessage `json:"user"`
	Metadata         json.RawMessage `json:"metadata"`
	Store            json.RawMessage `json:"store"`
	ServiceTier      json.RawMessage `json:"service_tier"`
	SafetyIdentifier json.RawMessage `json:"safety_identifier"`
	PromptCacheKey   json.RawMessage `json:"prompt_cache_key"`
}

// texts is a string or a list of strings.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	var one *string
	if json.Unmarshal(data, &one) == nil {
		*t = nil
		if one != nil {
			*t = texts{*one}
		}
		return nil
	}
	var several []string
	if json.Unmarshal(data, &several) != nil {
		return errors.New("want a string or a list of strings")
	}
	*t = several
	return nil
}

// readRequest reads the JSON of a request into v. What it does not know is an
// error: it would not have the effect that the client expects.
func readRequest(w http.ResponseWriter, r *http.Request, v any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &apiError{Status: http.StatusUnsupportedMediaType, Message: "want the Content-Type application/json"}
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &apiError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("a request of more than %d MiB", maxBody>>20)}
	}
	if err != nil {
		return badRequest("", "the request did not arrive whole: "+err.Error())
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		param := ""
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			param = kind.Field
		} else if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return badRequest(strings.Trim(name, `"`), "the parameter "+name+" is not known here")
		}
		return badRequest(param, "the request is not the JSON that is wanted: "+strings.TrimPrefix(pyjson.Plain(err).Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return badRequest("", "the request has something after its JSON")
	}
	return nil
}

// options checks the parameters and returns them as those of a text.
func (c *common) options(s *Server, defaultTokens int) (talk.Options, error) {
	var opt talk.Options
	opt.Temperature, opt.Endless = 1, c.IgnoreEOS
	if c.Temperature != nil {
		opt.Temperature = *c.Temperature
	}
	if c.TopP != nil {
		opt.TopP = *c.TopP
		if opt.TopP == 0 {
			return opt, badRequest("top_p", "top_p 0, want a number in (0, 1]")
		}
	}
	if c.TopK != nil && *c.TopK != -1 { // vLLM's word for all
		opt.TopK = *c.TopK
	}
	opt.Seed = uint64(time.Now().UnixNano())
	if c.Seed != nil {
		opt.Seed = uint64(*c.Seed)
	}
	if err := opt.Sampling.Validate(); err != nil {
		return opt, badRequest("", err.Error())
	}
	if opt.Temperature > 2 {
		return opt, badRequest("temperature", "want a temperature of at most 2")
	}
	opt.MaxTokens = defaultTokens
	if c.MaxTokens != nil {
		opt.MaxTokens = *c.MaxTokens
	}
	if opt.MaxTokens < 1 {
		return opt, badRequest("max_tokens", "want at least 1 token")
	}
	opt.MaxTokens = min(opt.MaxTokens, s.opt.MaxTokens)
	opt.Stop = c.Stop
	if len(opt.Stop) > 16 {
		return opt, badRequest("stop", "want at most 16 stop texts")
	}
	for _, stop := range opt.Stop {
		if stop == "" || len(stop) > 1000 {
			return opt, badRequest("stop", "want stop texts of 1 to 1000 bytes")
		}
	}
	switch {
	case c.FrequencyPenalty != 0 || c.PresencePenalty != 0:
		return opt, badRequest("frequency_penalty", "penalties are not supported")
	case len(c.LogitBias) > 0:
		return opt, badRequest("logit_bias", "logit_bias is not supported")
	case c.N != nil && (*c.N < 1 || *c.N > maxChoices):
		return opt, badRequest("n", fmt.Sprintf("want 1 to %d choices", maxChoices))
	case c.StreamOptions != nil && !c.Stream:
		return opt, badRequest("stream_options", "stream_options without stream")
	}
	return opt, nil
}

// choices returns how many answers each prompt gets.
func (c *common) choices() int {
	if c.N == nil {
		return 1
	}
	return *c.N
}

// completion is the body of /v1/completions.
type completion struct {
	common
	Prompt   prompts `json:"prompt"`
	Logprobs *int    `json:"logprobs"`

	Echo   bool   `json:"echo"`
	Suffix string `json:"suffix"`
	BestOf *int   `json:"best_of"`
}

// prompts are texts, or their tokens.
type prompts struct {
	texts  []string
	tokens [][]int32
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *prompts) UnmarshalJSON(data []byte) error {
	var text texts
	var tokens []int32
	var several [][]int32
	switch {
	case text.UnmarshalJSON(data) == nil:
		p.texts = text
	case json.Unmarshal(data, &tokens) == nil:
		p.tokens = [][]int32{tokens}
	case json.Unmarshal(data, &several) == nil:
		p.tokens = several
	default:
		return errors.New("prompt: want a string, a list of strings, tokens, or a list of these")
	}
	return nil
}

func (c *completion) base() *common { return &c.common }

// texts returns the tokens of the prompts, and how they go on.
func (c *completion) texts(s *Server, m *talk.Model) ([][]int32, talk.Options, error) {
	opt, err := c.options(s, 16)
	if err != nil {
		return nil, opt, err
	}
	switch {
	case c.Echo || c.Suffix != "":
		return nil, opt, badRequest("echo", "echo and suffix are not supported")
	case c.BestOf != nil && *c.BestOf != c.choices():
		return nil, opt, badRequest("best_of", "best_of is not supported")
	case c.Logprobs != nil && (*c.Logprobs < 0 || *c.Logprobs > 20):
		return nil, opt, badRequest("logprobs", "want 0 to 20 logprobs")
	}
	if c.Logprobs != nil {
		opt.Logprobs, opt.Top = true, *c.Logprobs
	}
	ids := c.Prompt.tokens
	if len(c.Prompt.texts) > maxChoices {
		return nil, opt, badRequest("prompt", fmt.Sprintf("want at most %d prompts", maxChoices))
	}
	for _, text := range c.Prompt.texts {
		prompt, err := m.Encode(text)
		if err != nil {
			return nil, opt, badRequest("prompt", err.Error())
		}
		ids = append(ids, prompt)
	}
	if len(ids) == 0 {
		return nil, opt, badRequest("prompt", "want a prompt")
	}
	for _, prompt := range c.Prompt.tokens { // Encode checks its own
		for _, id := range prompt {
			if id < 0 || int(id) >= m.Vocab {
				return nil, opt, badRequest("prompt", fmt.Sprintf("token %d, want one in [0, %d)", id, m.Vocab))
			}
		}
	}
	return ids, opt, nil
}

// chatCompletion is the body of /v1/chat/completions.
type chatCompletion struct {
	common
	Messages            []message                  `json:"messages"`
	MaxCompletionTokens *int                       `json:"max_completion_tokens"`
	Logprobs            bool                       `json:"logprobs"`
	TopLogprobs         *int                       `json:"top_logprobs"`
	TemplateValues      map[string]json.RawMessage `json:"chat_template_kwargs"` // as in vLLM

	// Refused where they ask for something.
	Tools          []json.RawMessage `json:"tools"`
	ToolChoice     json.RawMessage   `json:"tool_choice"`
	ParallelTools  json.RawMessage   `json:"parallel_tool_calls"`
	Functions      []json.RawMessage `json:"functions"`
	Modalities     []string          `json:"modalities"`
	ResponseFormat *struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

// message is a chat.Message whose content may come in parts.
type message struct {
	Role      string            `json:"role"`
	Content   content           `json:"content"`
	Name      json.RawMessage   `json:"name"`    // which no template reads
	Refusal   json.RawMessage   `json:"refusal"` // as answers have it
	ToolCalls []json.RawMessage `json:"tool_calls"`
	Function  json.RawMessage   `json:"function_call"`
	Audio     json.RawMessage   `json:"audio"`
	Notes     json.RawMessage   `json:"annotations"`
}

// content is a text: a string, or parts that are joined by ends of lines.
type content string

// UnmarshalJSON implements json.Unmarshaler.
func (c *content) UnmarshalJSON(data []byte) error {
	var text *string
	if json.Unmarshal(data, &text) == nil {
		if text != nil {
			*c = content(*text)
		}
		return nil
	}
	var parts []struct{ Type, Text string }
	if json.Unmarshal(data, &parts) != nil {
		return errors.New("content: want a string or a list of parts")
	}
	var all []string
	for _, p := range parts {
		if p.Type != "text" {
			return fmt.Errorf("content of type %.40q: this server reads text only", p.Type)
		}
		all = append(all, p.Text)
	}
	*c = content(strings.Join(all, "\n"))
	return nil
}

func (c *chatCompletion) base() *common { return &c.common }

func (c *chatCompletion) texts(s *Server, m *talk.Model) ([][]int32, talk.Options, error) {
	if c.MaxCompletionTokens != nil {
		c.MaxTokens = c.MaxCompletionTokens
	}
	opt, err := c.options(s, s.opt.MaxTokens)
	if err != nil {
		return nil, opt, err
	}
	switch {
	case len(c.Tools) > 0 || len(c.Functions) > 0:
		return nil, opt, badRequest("tools", "tools are not supported")
	case c.ResponseFormat != nil && c.ResponseFormat.Type != "text":
		return nil, opt, badRequest("response_format", "only response_format text is supported")
	case len(c.Modalities) > 0 && (len(c.Modalities) > 1 || c.Modalities[0] != "text"):
		return nil, opt, badRequest("modalities", "this server writes text only")
	case c.TopLogprobs != nil && (*c.TopLogprobs < 0 || *c.TopLogprobs > 20):
		return nil, opt, badRequest("top_logprobs", "want 0 to 20 top_logprobs")
	case c.TopLogprobs != nil && !c.Logprobs:
		return nil, opt, badRequest("top_logprobs", "top_logprobs without logprobs")
	case len(c.Messages) == 0:
		return nil, opt, badRequest("messages", "want at least one message")
	}
	opt.Logprobs = c.Logprobs
	if c.TopLogprobs != nil {
		opt.Top = *c.TopLogprobs
	}
	var messages []chat.Message
	for i, msg := range c.Messages {
		switch msg.Role {
		case "developer": // the newer name
			msg.Role = "system"
		case "system", "user", "assistant":
		default:
			return nil, opt, badRequest("messages", fmt.Sprintf("message %d has the role %.40q, want system, user or assistant", i, msg.Role))
		}
		if len(msg.ToolCalls) > 0 {
			return nil, opt, badRequest("messages", "tools are not supported")
		}
		messages = append(messages, chat.Message{Role: msg.Role, Content: string(msg.Content)})
	}
	prompt, err := m.EncodeChat(messages, chat.Options{Values: c.TemplateValues, Now: time.Now()})
	if errors.Is(err, chat.ErrNoTemplate) {
		return nil, opt, err
	}
	if err != nil {
		return nil, opt, badRequest("messages", err.Error())
	}
	return [][]int32{prompt}, opt, nil
}

// checkLength refuses a prompt of no tokens, or of more than the server or the model takes.
func (s *Server) checkLength(m *talk.Model, prompt []int32) error {
	most := m.Window - 1 // with room for a token
	if s.opt.MaxPrompt > 0 {
		most = min(most, s.opt.MaxPrompt)
	}
	switch {
	case len(prompt) == 0:
		return badRequest("prompt", "the prompt has no tokens, want at least one")
	case len(prompt) > most:
		return &batch.TooLongError{Tokens: len(prompt), Most: most}
	}
	return nil
}

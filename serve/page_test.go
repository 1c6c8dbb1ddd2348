package serve

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/internal/browsertest"
)

// The page shows what the API answers, of every model side by side, and asks no other
// server for anything. What a server refuses is shown in the answer's place.
func TestPage(t *testing.T) {
	b := browsertest.Open(t, 1200, "light")
	one, two := newModel(t, false, batch.Options{}), newModel(t, true, batch.Options{})
	two.Name = "<b>two</b>" // a name is text
	url := start(t, Options{}, one, two)
	want := map[string]string{}
	for _, m := range []string{one.Name, two.Name} {
		body, _ := json.Marshal(map[string]any{"model": m, "prompt": "The king", "max_tokens": 12, "temperature": 0})
		status, answer := post(t, url+"/v1/completions", string(body))
		var a struct{ Choices []struct{ Text string } }
		if err := json.Unmarshal(answer, &a); err != nil || status != 200 || len(a.Choices) != 1 {
			t.Fatalf("%d, %s: %v", status, answer, err)
		}
		want[m] = a.Choices[0].Text
	}

	b.GoTo(t, url+"/")
	ask := func(prompt string, tokens int) {
		t.Helper()
		set := fmt.Sprintf(`(() => {
			document.querySelector("#chat").checked = false;
			document.querySelector("#prompt").value = %q;
			document.querySelector("#tokens").value = %d;
			return true;
		})()`, prompt, tokens)
		browsertest.Value[bool](t, b, set)
		if err := chromedp.Do(b.Context, chromedp.Click("#go")); err != nil {
			t.Fatal(err)
		}
	}
	ask("The king", 12)
	b.Until(t, `[...document.querySelectorAll(".answer .note")].filter((n) => n.textContent.startsWith("12 tokens in")).length === 2`)
	text := browsertest.Value[string](t, b, `JSON.stringify([...document.querySelectorAll(".answer")].map((a) => ({
		name: a.querySelector("h2").textContent, text: a.querySelector(".text").textContent, left: a.getBoundingClientRect().left, top: a.getBoundingClientRect().top,
	})))`)
	var shown []struct {
		Name, Text string
		Left, Top  float64
	}
	if err := json.Unmarshal([]byte(text), &shown); err != nil || len(shown) != 2 {
		t.Fatalf("%s: %v", text, err)
	}
	for _, s := range shown {
		if w, ok := want[s.Name]; !ok || s.Text != w {
			t.Errorf("%s: shown %q, want %q", s.Name, s.Text, w)
		}
	}
	if shown[0].Top != shown[1].Top || shown[0].Left == shown[1].Left {
		t.Errorf("not side by side: %+v", shown)
	}

	ask(strings.Repeat("king ", 2000), 12) // beyond the window
	b.Until(t, `document.querySelectorAll(".answer .error").length === 2 && document.querySelector(".answer .error").textContent.includes("prompt")`)

	ask("The king", 400)
	b.Until(t, `[...document.querySelectorAll(".answer .text")].some((a) => a.textContent !== "")`)
	if err := chromedp.Do(b.Context, chromedp.Click("#stop")); err != nil {
		t.Fatal(err)
	}
	b.Until(t, `document.querySelector("#stop").disabled && [...document.querySelectorAll(".answer .note")].some((n) => n.textContent === "stopped")`)
}

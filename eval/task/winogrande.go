package task

import "strings"

// winogrande is WinoGrande: which of two names fills the blank? The score is
// of what follows the blank, after each name (Trinh and Le 2018,
// arXiv:1806.02847), so here the contexts differ and the continuation does not.
var winogrande = &Task{
	Name: "winogrande", Split: "validation", repo: "allenai/winogrande", folder: "winogrande_xl",
	requests: func(r *row) []Request {
		before, after, ok := strings.Cut(r.text("sentence"), "_")
		if !ok {
			r.failf(`column sentence: no "_" in it, want one`)
		}
		var all []Request
		for _, option := range []string{r.text("option1"), r.text("option2")} {
			context := before + option
			all = append(all, Request{Context: context, Continuation: " " + strip(after), Length: characters(context)})
		}
		return all
	},
	gold: func(r *row) int {
		answer := r.text("answer")
		if answer != "1" && answer != "2" {
			r.failf(`column answer: %q, want "1" or "2"`, answer)
		}
		return strings.Index("12", answer)
	},
}

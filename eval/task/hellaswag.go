package task

import (
	"regexp"
	"strings"
)

// hellaswag is HellaSwag: which of four endings goes on with a story?
var hellaswag = &Task{
	Name: "hellaswag", Split: "validation", repo: "Rowan/hellaswag", folder: "data",
	requests: func(r *row) []Request {
		context := r.text("activity_label") + ": " + r.text("ctx_a") + " " + capitalize(r.text("ctx_b"))
		endings := r.texts("endings")
		for i, e := range endings {
			endings[i] = withoutBrackets(e)
		}
		return choices(withoutBrackets(context), endings...)
	},
	gold: func(r *row) int { return r.number("label") },
}

var bracket = regexp.MustCompile(`\[[^\n]*?\]`)

// withoutBrackets takes out what WikiHow's markup left in the texts. White
// space goes first, so what the brackets leave at the ends stays.
func withoutBrackets(s string) string {
	s = strings.ReplaceAll(strip(s), " [title]", ". ")
	s = bracket.ReplaceAllString(s, "")
	return strings.ReplaceAll(s, "  ", " ")
}

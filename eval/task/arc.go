package task

import "slices"

// The AI2 Reasoning Challenge: science questions of schools, in two sets.
var (
	arcEasy      = arc("arc_easy", "ARC-Easy")
	arcChallenge = arc("arc_challenge", "ARC-Challenge")
)

func arc(name, folder string) *Task {
	return &Task{
		Name: name, Split: "test", repo: "allenai/ai2_arc", folder: folder,
		requests: func(r *row) []Request {
			c := r.object("choices")
			texts := c.texts("text")
			if labels := c.texts("label"); len(labels) != len(texts) {
				r.failf("column choices: %d texts and %d labels, want as many", len(texts), len(labels))
			}
			return choices("Question: "+r.text("question")+"\nAnswer:", texts...)
		},
		gold: func(r *row) int {
			labels, key := r.object("choices").texts("label"), r.text("answerKey")
			i := slices.Index(labels, key)
			if i < 0 {
				r.failf("column answerKey: %q, want one of the labels %q", key, labels)
			}
			return i
		},
	}
}

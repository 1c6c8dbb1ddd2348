package task

import "strings"

// mnli is Multi-Genre Natural Language Inference of GLUE: is a hypothesis
// true, false or neither, given a premise?
var mnli = &Task{
	Name: "mnli", Split: "validation_matched", repo: "nyu-mll/glue", folder: "mnli",
	requests: func(r *row) []Request {
		hypothesis := strip(r.text("hypothesis"))
		if !strings.HasSuffix(hypothesis, ".") {
			hypothesis += "."
		}
		return choices(r.text("premise")+"\nQuestion: "+hypothesis+" True, False or Neither?\nAnswer:", "True", "Neither", "False")
	},
	gold: label,
}

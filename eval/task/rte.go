package task

// rte is Recognising Textual Entailment of GLUE: does a text entail a sentence?
var rte = &Task{
	Name: "rte", Split: "validation", repo: "nyu-mll/glue", folder: "rte",
	requests: func(r *row) []Request {
		return choices(r.text("sentence1")+"\nQuestion: "+r.text("sentence2")+" True or False?\nAnswer:", "True", "False")
	},
	gold: label,
}

// label is the column of GLUE and SuperGLUE with the index of the right choice.
func label(r *row) int { return r.integer("label") }

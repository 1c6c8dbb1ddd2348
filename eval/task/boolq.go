package task

// boolq is BoolQ of SuperGLUE: a passage and a question of yes or no.
var boolq = &Task{
	Name: "boolq", Split: "validation", repo: "aps/super_glue", folder: "boolq",
	requests: func(r *row) []Request {
		return choices(r.text("passage")+"\nQuestion: "+r.text("question")+"?\nAnswer:", "no", "yes")
	},
	gold: label,
}

package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/crepe-llm/crepe/model"
)

// Set is the documents of one task.
type Set struct {
	Task      *Task
	Documents []Document
}

// Run asks m all documents of sets, whose hidden states share the memory, and
// returns the answers in order.
func Run(ctx context.Context, m *model.Model, e *Encoder, sets []Set, opt Options) ([][]Answer, error) {
	var docs []Document
	for _, s := range sets {
		docs = append(docs, s.Documents...)
	}
	all, err := Score(ctx, m, e, docs, opt)
	if err != nil {
		return nil, place(err, sets)
	}
	answers := make([][]Answer, len(sets))
	for i, s := range sets {
		for j := range s.Documents {
			answers[i] = append(answers[i], s.Documents[j].answer(s.Task.Name, j, all[j]))
		}
		all = all[len(s.Documents):]
	}
	return answers, nil
}

// place names the task of the document that err is about.
func place(err error, sets []Set) error {
	var d *DocumentError
	if !errors.As(err, &d) {
		return err
	}
	i := d.Index
	for _, s := range sets {
		if i < len(s.Documents) {
			return fmt.Errorf("task %s: document %d: %w", s.Task.Name, i, d.Err)
		}
		i -= len(s.Documents)
	}
	return err
}

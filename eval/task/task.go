// Package task measures a model by multiple choice: a context, some
// continuations, and the one that the model finds likeliest is its answer.
//
// Prompts and mechanics are those of EleutherAI's lm-evaluation-harness
// (0.4.13; the prompts are the same since 0.3.0), so that the numbers are the
// same, document by document. docs/evaluation.md describes them.
//
// Terms: a document is one row of a dataset, a request one of its choices with
// the context that it continues, gold the index of the right choice. Lengths
// of texts are in characters (code points), log-likelihoods in nats.
package task

import (
	"fmt"
	"slices"
	"strings"
)

// Task is a dataset and how its rows become requests. A new task is one more
// file that says so, and its place in tasks.
type Task struct {
	Name  string
	Split string // the split's name, with which its files begin

	repo   string // the dataset's repository on the hub
	folder string // in it, with the split's files

	requests func(r *row) []Request
	gold     func(r *row) int
}

// Request is a continuation whose likelihood after a context is asked for.
type Request struct {
	Context      string
	Continuation string
	Length       int // characters that normalised accuracy divides by
}

// Document is a row as requests; Gold is the index of the right one.
type Document struct {
	Requests []Request
	Gold     int
}

var tasks = []*Task{rte, mnli, hellaswag, boolq, arcEasy, arcChallenge, winogrande}

// Names returns the names of all tasks.
func Names() []string {
	var names []string
	for _, t := range tasks {
		names = append(names, t.Name)
	}
	return names
}

// Parse reads a list of names: "rte,mnli".
func Parse(list string) ([]*Task, error) {
	var all []*Task
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(tasks, func(t *Task) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown task %q, want some of %s", name, strings.Join(Names(), ", "))
		}
		if slices.Contains(all, tasks[i]) {
			return nil, fmt.Errorf("task %q is listed twice", name)
		}
		all = append(all, tasks[i])
	}
	return all, nil
}

// document makes requests of a row. What is wrong with the row is an error.
func (t *Task) document(r *row) (Document, error) {
	d := Document{Requests: t.requests(r), Gold: t.gold(r)}
	if r.err != nil {
		return d, r.err
	}
	if len(d.Requests) == 0 {
		return d, fmt.Errorf("no choices, want at least one")
	}
	if d.Gold < 0 || d.Gold >= len(d.Requests) {
		return d, fmt.Errorf("the right choice is number %d (from 0), want one of %d", d.Gold, len(d.Requests))
	}
	return d, nil
}

// choices returns a request for each choice: the context, one space, the choice.
func choices(context string, texts ...string) []Request {
	all := make([]Request, len(texts))
	for i, text := range texts {
		all[i] = Request{Context: context, Continuation: " " + text, Length: characters(text)}
	}
	return all
}

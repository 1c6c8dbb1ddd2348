package task

import (
	"fmt"
	"math"
)

// Answer is a document's result, one line of the samples file.
type Answer struct {
	Task     string    `json:"task"`
	Doc      int       `json:"doc"` // from 0, in the order of the files
	Log      []float64 `json:"loglikelihood"`
	Tokens   []int     `json:"tokens"`    // of each continuation
	Pred     int       `json:"pred"`      // the likeliest choice
	PredNorm int       `json:"pred_norm"` // the likeliest by likelihood over length
	Gold     int       `json:"gold"`
}

// answer is what the model answers to d. Of equals the first counts.
func (d *Document) answer(task string, doc int, l Likelihoods) Answer {
	norm := make([]float64, len(l.Log))
	for i, v := range l.Log {
		norm[i] = math.Inf(-1) // an empty choice
		if n := d.Requests[i].Length; n > 0 {
			norm[i] = v / float64(n)
		}
	}
	return Answer{
		Task: task, Doc: doc, Log: l.Log, Tokens: l.Tokens,
		Pred: largest(l.Log), PredNorm: largest(norm), Gold: d.Gold,
	}
}

// largest returns the index of the first largest element.
func largest(x []float64) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// Result is the accuracy on one task, shares in [0, 1].
type Result struct {
	Task          string   `json:"task"`
	Documents     int      `json:"documents"`
	Acc           float64  `json:"acc"`
	AccStderr     *float64 `json:"acc_stderr"` // null of one document
	AccNorm       float64  `json:"acc_norm"`
	AccNormStderr *float64 `json:"acc_norm_stderr"`
}

// Summarize returns the result of a task's answers.
func Summarize(task string, answers []Answer) Result {
	right, rightNorm := 0, 0
	for _, a := range answers {
		if a.Pred == a.Gold {
			right++
		}
		if a.PredNorm == a.Gold {
			rightNorm++
		}
	}
	r := Result{Task: task, Documents: len(answers)}
	r.Acc, r.AccStderr = share(right, len(answers))
	r.AccNorm, r.AccNormStderr = share(rightNorm, len(answers))
	return r
}

// share returns p = k/n and its standard error sqrt(p·(1−p)/(n−1)).
func share(k, n int) (float64, *float64) {
	p := float64(k) / float64(n)
	if n < 2 {
		return p, nil
	}
	e := math.Sqrt(p * (1 - p) / float64(n-1))
	return p, &e
}

// Mean returns the plain means over tasks of both accuracies.
func Mean(results []Result) (acc, accNorm float64) {
	for _, r := range results {
		acc += r.Acc / float64(len(results))
		accNorm += r.AccNorm / float64(len(results))
	}
	return acc, accNorm
}

// Difference is a model's accuracy less a dense one's on the same documents.
type Difference struct {
	Task          string   `json:"task"`
	Acc           float64  `json:"acc"`
	AccStderr     *float64 `json:"acc_stderr"` // null of one document
	AccNorm       float64  `json:"acc_norm"`
	AccNormStderr *float64 `json:"acc_norm_stderr"`
}

// Compare returns the difference between two models' answers to one task. The
// documents are paired: the error is that of the mean of each document's
// change, −1, 0 or 1, and mostly much below those of the two accuracies.
func Compare(model, dense []Answer) Difference {
	if len(model) != len(dense) || len(model) == 0 {
		panic(fmt.Sprintf("task: Compare: %d and %d answers, want as many and some", len(model), len(dense)))
	}
	change, norm := make([]float64, len(model)), make([]float64, len(model))
	right := func(pred int, a Answer) float64 {
		if pred == a.Gold {
			return 1
		}
		return 0
	}
	for i, a := range model {
		change[i] = right(a.Pred, a) - right(dense[i].Pred, a)
		norm[i] = right(a.PredNorm, a) - right(dense[i].PredNorm, a)
	}
	d := Difference{Task: model[0].Task}
	d.Acc, d.AccStderr = mean(change)
	d.AccNorm, d.AccNormStderr = mean(norm)
	return d
}

// mean returns x's mean and its standard error sqrt(Σ(x−mean)²/(n−1)/n).
func mean(x []float64) (float64, *float64) {
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum += v
	}
	m := sum / float64(len(x))
	if len(x) < 2 {
		return m, nil
	}
	for _, v := range x {
		squares += (v - m) * (v - m)
	}
	e := math.Sqrt(squares / float64(len(x)-1) / float64(len(x)))
	return m, &e
}

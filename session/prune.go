package session

import (
	"context"
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// DemoWindows is the number of windows of the demo's text that are measured by
// default, so that the demo is quick.
const DemoWindows = 64

// CalibrationText returns the default calibration text of a model: the demo's for
// the demo model, otherwise the literature's.
func CalibrationText(model string) string { return defaultText(model, "c4") }

// EvaluationText is CalibrationText for the text that perplexity is measured on.
func EvaluationText(model string) string { return defaultText(model, "wikitext2") }

func defaultText(model, literature string) string {
	if model == Demo {
		return Demo
	}
	return literature
}

// WithTexts returns r with the default texts of a model where it names none.
func WithTexts(r recipe.Recipe, model string) recipe.Recipe {
	if r.Calibration.Source == "" {
		r.Calibration.Source = CalibrationText(model)
	}
	if r.Eval.Source == "" {
		r.Eval.Source = EvaluationText(model)
		if r.Eval.Source == Demo && r.Eval.Windows == 0 {
			r.Eval.Windows = DemoWindows
		}
	}
	return r
}

// Prune prunes the model by opt.Recipe and writes the result to opt.Output. What
// opt leaves out is filled in as the command does: texts, memory budget, reports of
// progress. All that can be known without the texts is checked before they are
// loaded. If a default text to measure perplexity on is not available, it is not
// measured, and a warning says so.
func (s *Session) Prune(ctx context.Context, opt prune.Options) (*prune.Report, error) {
	optional := opt.Recipe.Eval.Source == ""
	if _, err := s.Plan(&opt); err != nil {
		return nil, err
	}
	if err := s.LoadTexts(ctx, &opt, optional); err != nil {
		return nil, err
	}
	return prune.Run(ctx, s.Inventory, s.Model, opt)
}

// Plan fills in what opt leaves out and returns what a run would do. It reads no
// text and writes nothing. What would keep the run from its end, such as an output
// folder that is not empty, is an error.
func (s *Session) Plan(opt *prune.Options) (*prune.Plan, error) {
	s.fill(opt)
	expected := *opt
	calibration, evaluation, err := s.Loader().Prospect(opt.Recipe.Calibration, opt.Recipe.Eval)
	if err != nil {
		return nil, err
	}
	if opt.Calibration == nil {
		expected.Calibration = calibration
	}
	if opt.Evaluation == nil {
		expected.Evaluation = evaluation
	}
	plan, err := prune.MakePlan(s.Inventory, s.Model, expected)
	if err != nil {
		return nil, err
	}
	if absent := plan.Absent(); len(absent) > 0 {
		s.opt.warn("the recipe has parameters of its own for %s, of which the model has none", strings.Join(absent, ", "))
	}
	return plan, plan.Check(s.Inventory, expected)
}

// fill sets what opt leaves out.
func (s *Session) fill(opt *prune.Options) {
	opt.Recipe = WithTexts(opt.Recipe.WithDefaults(), s.Name)
	if opt.Model == "" {
		opt.Model = s.Name
	}
	if opt.Memory == 0 {
		opt.Memory = s.opt.Memory
	}
	if opt.Progress == nil {
		opt.Progress = s.opt.Progress
	}
	if opt.Warn == nil {
		opt.Warn = s.opt.Warn
	}
}

// TextError is an error of one of a recipe's texts.
type TextError struct {
	Key string // that names the text in the recipe: "calibration" or "eval"
	Err error
}

func (e *TextError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Err) }

func (e *TextError) Unwrap() error { return e.Err }

// LoadTexts loads the texts of opt.Recipe that opt does not hold. With optional, an
// evaluation text that is not available is a warning, and perplexity is not
// measured.
func (s *Session) LoadTexts(ctx context.Context, opt *prune.Options, optional bool) error {
	resolved, err := opt.Recipe.Resolve()
	if err != nil {
		return err
	}
	go provenance.This() // the run asks for it next; it hashes the program meanwhile
	l := s.Loader()
	if opt.Calibration == nil && resolved.Method.NeedsData {
		if opt.Calibration, err = l.Calibration(ctx, opt.Recipe.Calibration); err != nil {
			return &TextError{"calibration", err}
		}
	}
	if opt.Evaluation != nil || opt.Recipe.Eval.Source == "none" {
		return nil
	}
	opt.Evaluation, err = l.Evaluation(ctx, opt.Recipe.Eval)
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case !optional:
		return &TextError{"eval", err}
	}
	s.opt.warn("perplexity is not measured: %v; choose a text with --eval", err)
	opt.Evaluation, opt.Recipe.Eval.Source = nil, "none"
	return nil
}

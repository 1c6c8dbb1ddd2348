package recipe

import (
	"slices"
	"strings"
	"testing"
)

func TestSpecsOfMethods(t *testing.T) {
	for _, spec := range []string{"magnitude", "crepe", "sparsegpt", "crepe+sparsegpt", "magnitude+sparsegpt"} {
		r, err := Recipe{Update: "sparsegpt", Pattern: "2:4"}.WithMethod(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Spec(); got != spec || r.Pattern != "2:4" {
			t.Errorf("%s comes back as %s, pattern %s", spec, got, r.Pattern)
		}
		if _, err := r.Resolve(); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
	first, err := Recipe{}.WithMethod("denoise+wanda+admm")
	if err != nil || first.Spec() != "wanda+denoise+admm" {
		t.Errorf("a rotation before the method: %s, %v", first.Spec(), err)
	}
	for spec, want := range map[string]string{
		"denoise":                     `unknown method "denoise" in "denoise", want one of magnitude,`,
		"":                            `unknown method "" in "", want one of magnitude, wanda,`,
		"obs":                         `unknown method "obs" in "obs", want one of magnitude, wanda,`,
		"sparsegpt+crepe":             `unknown step "crepe" in "sparsegpt+crepe", want one of `,
		"crepe+":                      `unknown step "" in "crepe+"`,
		"crepe+sparsegpt+sparsegpt":   `update: both "sparsegpt" and "sparsegpt" in "crepe+sparsegpt+sparsegpt"`,
		"crepe + sparsegpt + what":    `unknown step "what" in "crepe + sparsegpt + what"`,
		"crepe+sparsegpt+alsonothing": `step "alsonothing"`,
	} {
		if _, err := (Recipe{}).WithMethod(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %s", spec, err, want)
		}
	}
}

// Every step of every registry can follow a method, and several can.
func TestEveryStepHasASpec(t *testing.T) {
	specs := []string{"ria+owl+sparsegpt", "crepe+dsnot+admm"}
	for _, step := range StepNames() {
		specs = append(specs, "crepe+"+step)
	}
	for _, spec := range specs {
		r, err := (Recipe{}).WithMethod(spec)
		if err != nil || r.Spec() != spec {
			t.Errorf("%s comes back as %s (%v)", spec, r.Spec(), err)
		}
		_, free := r.Resolve()
		r.Pattern = "2:4"
		_, grouped := r.Resolve()
		if free != nil && grouped != nil {
			t.Errorf("%s goes neither with 50%% (%v) nor with 2:4 (%v)", spec, free, grouped)
		}
	}
}

// A name means one step only.
func TestStepsHaveNamesOfTheirOwn(t *testing.T) {
	names := append(StepNames(), "pho")
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("a name is listed twice: %v", names)
	}
}

package recipe

import (
	"strings"
	"testing"
)

// Every file is of a model that is listed, says a method and a target and no more, and
// is read by its name.
func TestBuiltins(t *testing.T) {
	files, err := builtinFiles.ReadDir("builtin")
	if err != nil {
		t.Fatal(err)
	}
	all := Builtins()
	if len(all) != len(files) || len(all) == 0 {
		t.Errorf("%d recipes in %d files", len(all), len(files))
	}
	for _, b := range all {
		r, err := Read(BuiltinPrefix + b.Name)
		if err != nil || !r.Equal(b.Recipe) {
			t.Errorf("%s: %+v (%v)", b.Name, r, err)
		}
		if r.Calibration != (Calibration{}) || r.Eval != (Eval{}) || r.Compute != "" || r.Skip != "" {
			t.Errorf("%s: %+v, want nothing of texts and machine", b.Name, r)
		}
		if b.Weights == 0 || b.Class == "" || b.Model == "" {
			t.Errorf("%s: %+v, want a model", b.Name, b)
		}
		if _, err := r.Resolve(); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
	if _, err := Read("builtin:none"); err == nil || !strings.Contains(err.Error(), "builtin:none: no such recipe, want one of "+all[0].Name) {
		t.Errorf("error %v, want the names", err)
	}
}

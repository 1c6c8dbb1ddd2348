package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// interrupted makes a partial folder with all steps done, and returns its output.
func interrupted(t *testing.T, inv *Inventory, p *Plan, target string) {
	t.Helper()
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	if err := drive(t, w, inv, func() bool { calls++; return calls == len(blocks)+len(steps)+1 }); err != nil {
		t.Fatal(err)
	}
	w.Close()
}

// flip changes a bit of the file at path.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[at] ^= 4
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// A bit that flips between kill and resume is noticed wherever it is: what is made
// in seconds is refused, what took long is done again from there on, and the output
// is that of an undisturbed run.
func TestResumeNoticesDamage(t *testing.T) {
	inv, p, target := setup(t)
	want := finished(t, inv, p)
	interrupted(t, inv, p, target)
	parent, partial := filepath.Dir(target), partialPath(target)
	journal, err := os.ReadFile(filepath.Join(partial, journalName))
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.IndexByte(journal, '\n') + 1
	second := begin + bytes.IndexByte(journal[begin:], '\n') + 1
	x, _ := p.Tensor("1.q") // of the first step
	shard := filepath.Join(outName, x.File)
	for name, c := range map[string]struct {
		file    string
		at      int
		refused string // else it goes on
		damaged string
	}{
		"begin":                 {journalName, begin / 2, "line 1 is damaged", ""},
		"its checksum":          {journalName, 3, "line 1 is damaged", ""},
		"first step":            {journalName, (begin + second) / 2, "", "line 2 is damaged"},
		"end of the first":      {journalName, second - 1, "", "line 2 is damaged"},
		"last step":             {journalName, len(journal) - 9, "", ""}, // as if torn
		"header of a shard":     {shard, 20, "not as it was begun", ""},
		"tensor":                {shard, int(x.Offset + x.Size/2), "", "tensor 1.q is not as it was written"},
		"a copy of an aux file": {filepath.Join(outName, p.Aux[0].Path), 0, "not as it was begun", ""},
	} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(copyTree(t, parent), filepath.Base(target))
			flip(t, filepath.Join(partialPath(target), c.file), c.at)
			w, err := Resume(target, p, inv, options)
			if c.refused != "" {
				wantError(t, err, c.refused)
				if strings.Contains(err.Error(), "--overwrite") {
					t.Errorf("%v: advice that throws work away", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := w.Damaged(); !strings.Contains(got, c.damaged) || (got == "") != (c.damaged == "") {
				t.Errorf("damaged %q, want %q", got, c.damaged)
			}
			if err := drive(t, w, inv, never); err != nil {
				t.Fatal(err)
			}
			sameTree(t, tree(t, target), want)
		})
	}
}

// An aux file that has changed since is noticed, of the same size too.
func TestResumeNoticesAuxFile(t *testing.T) {
	inv, p, target := setup(t)
	interrupted(t, inv, p, target)
	flip(t, filepath.Join(inv.Dir(), p.Aux[0].Path), 0)
	_, err := Resume(target, p, inv, options)
	wantError(t, err, "cannot be resumed", p.Aux[0].Path+" changed since it began")
}

// A file of a partial folder, or of the input, that now claims a terabyte is not read.
func TestResumeReadsNoTerabyte(t *testing.T) {
	inv, p, target := setup(t)
	interrupted(t, inv, p, target)
	parent, aux := filepath.Dir(target), p.Aux[len(p.Aux)-1].Path
	grow := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Truncate(path, 1<<40); err != nil {
			t.Skipf("no sparse files here: %v", err)
		}
	}
	for file, want := range map[string]string{
		journalName:                       "1099511627776 bytes, want at most 1073741824",
		filepath.Join(outName, indexName): "not as it was begun",
		filepath.Join(outName, aux):       "not as it was begun",
	} {
		t.Run(file, func(t *testing.T) {
			target := filepath.Join(copyTree(t, parent), filepath.Base(target))
			path := filepath.Join(partialPath(target), file)
			grow(t, path)
			_, err := Resume(target, p, inv, options)
			wantError(t, err, path, want)
		})
	}
	grow(t, filepath.Join(inv.Dir(), aux))
	again := open(t, inv.Dir())
	_, err := Resume(target, plan(t, again, 300), again, options)
	wantError(t, err, "cannot be resumed", aux+" changed since it began")
}

// What is left without a journal, before the begin or after the last renaming, is
// nothing to resume, and is not left behind.
func TestResumeOfNothing(t *testing.T) {
	inv, p, target := setup(t)
	interrupted(t, inv, p, target)
	if err := os.Remove(filepath.Join(partialPath(target), journalName)); err != nil {
		t.Fatal(err)
	}
	_, err := Resume(target, p, inv, options)
	wantError(t, err, ErrNoPartial.Error())
	wantAbsent(t, partialPath(target))
}

// An interrupted run is not forgotten by a command that does not resume it.
func TestCheckTargetSeesInterruptedRun(t *testing.T) {
	inv, p, target := setup(t)
	interrupted(t, inv, p, target)
	err := CheckTarget(target, inv, false)
	wantError(t, err, "--resume", partialPath(target))
	if err != nil && strings.Contains(err.Error(), "--overwrite") {
		t.Errorf("%v: advice that throws work away", err)
	}
	if err := CheckTarget(target, inv, true); err != nil {
		t.Error(err)
	}
}

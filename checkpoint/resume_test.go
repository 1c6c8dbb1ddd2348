package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/provenance"
)

// copyTree copies a folder, as a kill at this moment would leave it.
func copyTree(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// spoil overwrites the tensors that the journal in a partial folder does not
// vouch for: without a sync they may hold anything after a power cut.
func spoil(t *testing.T, partial string, p *Plan) {
	t.Helper()
	lines, _, _, err := readJournal(filepath.Join(partial, journalName))
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) == 0 {
		return
	}
	safe := map[string]bool{}
	for _, l := range lines {
		for _, name := range l.Tensors {
			safe[name] = true
		}
	}
	for _, s := range p.Shards {
		path := filepath.Join(partial, outName, s.Name)
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range s.Tensors {
			if !safe[x.Name] {
				copy(file[x.Offset:], bytes.Repeat([]byte{0xa5}, int(x.Size)))
			}
		}
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// goOn resumes and drives to the end.
func goOn(t *testing.T, target string, p *Plan, inv *Inventory, o Options) {
	t.Helper()
	w, err := Resume(target, p, inv, o)
	if errors.Is(err, ErrFinished) {
		return
	}
	if errors.Is(err, ErrNoPartial) {
		w, err = Create(target, p, inv, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := drive(t, w, inv, never); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, partialPath(target))
}

// TestResumeAnywhere stops the driver before each of its calls, loses what was
// not synced, cuts the journal after each of its bytes, and resumes: the same
// files every time.
func TestResumeAnywhere(t *testing.T) {
	inv, p, target := setup(t)
	want := finished(t, inv, p)
	var snapshots []string
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	err = drive(t, w, inv, func() bool {
		snapshots = append(snapshots, copyTree(t, filepath.Dir(target)))
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(snapshots) != len(blocks)+len(steps)+1 {
		t.Fatalf("%d snapshots, want %d", len(snapshots), len(blocks)+len(steps)+1)
	}
	for i, dir := range snapshots {
		target := filepath.Join(dir, "pruned")
		spoil(t, partialPath(target), p)
		goOn(t, target, p, inv, options)
		t.Run(fmt.Sprint("before call ", i), func(t *testing.T) { sameTree(t, tree(t, target), want) })
	}
}

// FuzzJournal reads any text as a journal, and lines that any text is the JSON of:
// what is taken of it is what was written, and its tensors are the plan's.
func FuzzJournal(f *testing.F) {
	inv := open(f, folder(f, sharded(f)))
	p := plan(f, inv, 300)
	w, err := Create(filepath.Join(f.TempDir(), "pruned"), p, inv, options)
	if err != nil {
		f.Fatal(err)
	}
	defer w.Close()
	if err := errors.Join(w.WriteTensor("0.q", make([]byte, 128)), w.Mark("block 0", []int{1})); err != nil {
		f.Fatal(err)
	}
	made, err := os.ReadFile(filepath.Join(w.partial, journalName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(made, []byte(`{"done": "a", "tensors": ["0.q"], "sums": [1], "info": null}`))
	f.Add(made[:len(made)-1], []byte(`{"done": "a", "tensors": ["0.q", "x"], "sums": [4294967295, 0]}`))
	f.Add([]byte(`{"begin": {"version": 1}}`+"\n"), []byte(`{"commit": true}`))
	f.Add([]byte("\x00\n"), []byte(`{"begin": {"version": 2}, "done": ""}`))
	f.Fuzz(func(t *testing.T, text, rest []byte) {
		for _, text := range [][]byte{text, fmt.Appendf(bytes.Clone(made), "%08x %s\n", crc32.Checksum(rest, castagnoli), rest)} {
			var lines []line
			var ends []int64
			golden.Ceiling(t, uint64(64<<10+100*len(text)), func() { lines, ends, _, err = parseJournal("journal", text) })
			if err != nil || len(lines) == 0 {
				continue
			}
			if len(ends) != len(lines) || !slices.IsSorted(ends) || ends[len(ends)-1] > int64(len(text)) {
				t.Fatalf("%d lines end at %v of %d bytes", len(lines), ends, len(text))
			}
			again := newWriter(w.target, p, inv)
			again.files = w.files
			if whole, err := again.recheckTensors(lines[1:]); err == nil && whole > len(lines)-1 {
				t.Fatalf("%d of %d steps are whole", whole, len(lines)-1)
			}
		}
	})
}

func TestResumeTornJournal(t *testing.T) {
	inv, p, target := setup(t)
	want := finished(t, inv, p)
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	if err := drive(t, w, inv, func() bool { calls++; return calls == len(blocks)+len(steps)+1 }); err != nil {
		t.Fatal(err)
	}
	w.Close()
	parent := filepath.Dir(target)
	journal, err := os.ReadFile(filepath.Join(partialPath(target), journalName))
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(journal, []byte("\n")); lines != 1+len(steps) {
		t.Fatalf("%d lines in the journal, want %d", lines, 1+len(steps))
	}
	for n := range len(journal) + 1 {
		// A resumption costs a dozen syncs: near the ends of lines, and now and
		// then within.
		end := bytes.IndexByte(append(bytes.Clone(journal[n:]), '\n'), '\n') == 0 || n > 0 && journal[n-1] == '\n'
		tails := []string{"", "\x00\x00\x00", "\x00\n"}
		if !end && n%64 != 0 {
			tails = nil
			checkTorn(t, journal[:n])
		}
		for _, tail := range tails {
			target := filepath.Join(copyTree(t, parent), "pruned")
			torn := append(bytes.Clone(journal[:n]), tail...)
			if err := os.WriteFile(filepath.Join(partialPath(target), journalName), torn, 0o666); err != nil {
				t.Fatal(err)
			}
			spoil(t, partialPath(target), p)
			goOn(t, target, p, inv, options)
			if sameTree(t, tree(t, target), want); t.Failed() {
				t.Fatalf("after %d bytes of the journal and %q", n, tail)
			}
		}
	}
}

// checkTorn checks that a journal that is cut within a line counts up to the
// end of the line before.
func checkTorn(t *testing.T, text []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), journalName)
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
	lines, ends, damaged, err := readJournal(path)
	whole := bytes.LastIndexByte(text, '\n') + 1
	size := 0
	if len(ends) > 0 {
		size = int(ends[len(ends)-1])
	}
	if err != nil || damaged != "" || size != whole || len(lines) != bytes.Count(text, []byte("\n")) {
		t.Errorf("%q: %d lines in %d bytes, %v %s, want those of %d bytes", text, len(lines), size, err, damaged, whole)
	}
}

// TestResumeCommit resumes in each state that Commit goes through after its
// line is in the journal.
func TestResumeCommit(t *testing.T) {
	inv, p, target := setup(t)
	want := finished(t, inv, p)
	write(t, target, map[string]string{"config.json": "old", "crepe.json": manifest})
	o := options
	o.Overwrite = true
	w, err := Create(target, p, inv, o)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	if err := drive(t, w, inv, func() bool { calls++; return calls == len(blocks)+len(steps)+1 }); err != nil {
		t.Fatal(err)
	}
	if err := w.writeFile("crepe.json", []byte(manifest)); err != nil {
		t.Fatal(err)
	}
	if err := w.journal.append(line{Commit: true}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for i := range 5 {
		t.Run(fmt.Sprint("state ", i), func(t *testing.T) {
			target := filepath.Join(copyTree(t, filepath.Dir(target)), "pruned")
			partial := partialPath(target)
			replaced, out := filepath.Join(partial, replacedName), filepath.Join(partial, outName)
			for _, do := range []func() error{
				func() error { return os.Rename(target, replaced) },
				func() error { return os.Rename(out, target) },
				func() error { return os.RemoveAll(replaced) },
				func() error { return os.RemoveAll(filepath.Join(partial, scratchName)) },
			}[:i] {
				if err := do(); err != nil {
					t.Fatal(err)
				}
			}
			// --overwrite was said at the start, and need not be again.
			if _, err := Resume(target, p, inv, options); !errors.Is(err, ErrFinished) {
				t.Fatalf("Resume: %v, want ErrFinished", err)
			}
			sameTree(t, tree(t, target), want)
			wantAbsent(t, partial)
		})
	}
	t.Run("begun again between the renamings", func(t *testing.T) {
		target := filepath.Join(copyTree(t, filepath.Dir(target)), "pruned")
		if err := os.Rename(target, filepath.Join(partialPath(target), replacedName)); err != nil {
			t.Fatal(err)
		}
		w, err := Create(target, p, inv, o)
		if err != nil {
			t.Fatal(err)
		}
		if tree(t, target)["config.json"] != "old" {
			t.Error("the old folder is gone before the new one is complete")
		}
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestResumeRefuses(t *testing.T) {
	inv, p, target := setup(t)
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Resume(target, p, inv, options); err == nil {
		t.Fatal("two writers of one folder")
	} else {
		wantError(t, err, "another process")
	}
	again := options
	again.Overwrite = true
	if _, err := Create(target, p, inv, again); err == nil {
		t.Fatal("two writers of one folder")
	}
	w.Close()

	_, err = Create(target, p, inv, options)
	if !errors.Is(err, ErrPartial) {
		t.Errorf("Create: %v, want ErrPartial", err)
	}
	wantError(t, err, "--resume", partialPath(target))

	other := Options{Provenance: provenance.Record{{Name: "program", Value: "two"}, {Name: "method", Value: "wanda"}, {Name: "sparsity", Value: "50%"}}}
	_, err = Resume(target, p, inv, other)
	wantError(t, err, "cannot be resumed", "program: one made it, this is two", "method: crepe, this is wanda")
	if err != nil && bytes.Contains([]byte(err.Error()), []byte("sparsity")) {
		t.Errorf("error %q, want only the lines that differ", err)
	}
	_, err = Resume(target, plan(t, inv, 400), inv, options)
	wantError(t, err, "layout", "sha256:")
	_, err = Resume(filepath.Join(filepath.Dir(target), "elsewhere"), p, inv, options)
	if !errors.Is(err, ErrNoPartial) {
		t.Errorf("Resume: %v, want ErrNoPartial", err)
	}
	wantAbsent(t, filepath.Join(filepath.Dir(target), ".elsewhere.crepe-partial"))

	journal := filepath.Join(partialPath(target), journalName)
	text, _ := os.ReadFile(journal)
	sealed := func(l line) string {
		text, err := formatLine(l)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, c := range map[string][2]string{
		"no begin":        {sealed(line{Done: "x"}), "line 1"},
		"two begins":      {string(text) + string(text), "line 2"},
		"unknown tensor":  {string(text) + sealed(line{Done: "x", Tensors: []string{"y"}, Sums: []uint32{1}}), `tensor "y"`},
		"no checksum":     {string(text) + sealed(line{Done: "x", Tensors: []string{"embed"}}), "0 checksums of 1 tensors"},
		"damaged begin":   {"x" + string(text) + sealed(line{Done: "x"}), "line 1 is damaged"},
		"another version": {"{\"begin\":{\"version\":9}}\n", "version 9"},
		"of version 1":    {"{\"begin\":{\"version\":1,\"plan\":\"p\",\"fingerprint\":\"f\"}}\n{\"done\":\"x\"}\n", "version 1"},
	} {
		if err := os.WriteFile(journal, []byte(c[0]), 0o666); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			_, err := Resume(target, p, inv, options)
			wantError(t, err, c[1])
		})
	}
	if err := os.WriteFile(journal, text, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(partialPath(target), outName, p.Shards[0].Name), 50); err != nil {
		t.Fatal(err)
	}
	_, err = Resume(target, p, inv, options)
	wantError(t, err, p.Shards[0].Name, "cannot be resumed")

	w, err = Create(target, p, inv, again)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
}

// TestKill kills a process that writes, again and again, until it is through.
func TestKill(t *testing.T) {
	if target := os.Getenv("CREPE_TEST_TARGET"); target != "" {
		killed(t, os.Getenv("CREPE_TEST_INPUT"), target)
		return
	}
	inv, p, target := setup(t)
	want := finished(t, inv, p)
	kills, delay := 0, 10*time.Millisecond
	for ; ; kills++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "CREPE_TEST_TARGET="+target, "CREPE_TEST_INPUT="+inv.Dir())
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		delay += delay / 4 // later each time, so that it ends
		timer := time.AfterFunc(delay, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		if !timer.Stop() && err != nil {
			if _, err := os.Lstat(target); err == nil {
				sameTree(t, tree(t, target), want) // what is there is complete
			}
			continue
		}
		if err != nil {
			t.Fatalf("after %d kills: %v\n%s", kills, err, out.String())
		}
		break
	}
	t.Logf("%d kills", kills)
	sameTree(t, tree(t, target), want)
	wantAbsent(t, filepath.Join(partialPath(target), journalName))
}

// killed is the process that TestKill kills.
func killed(t *testing.T, input, target string) {
	inv := open(t, input)
	p := plan(t, inv, 300)
	w, err := Resume(target, p, inv, options)
	if errors.Is(err, ErrNoPartial) {
		w, err = Create(target, p, inv, options)
	}
	if errors.Is(err, ErrFinished) {
		return
	}
	if err != nil {
		if _, terr := os.Stat(target); terr == nil {
			return // killed after the last renaming
		}
		t.Fatal(err)
	}
	if err := drive(t, w, inv, func() bool { time.Sleep(5 * time.Millisecond); return false }); err != nil {
		t.Fatal(err)
	}
}

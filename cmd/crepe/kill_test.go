package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// A search and a grid whose process is killed at its first line on stderr, begun
// again and killed at the third, and so on, end as those that nobody killed.
func TestKilled(t *testing.T) {
	model, ids := smallModel(t), idsFile(t, 8, 320, 1)
	for name, flags := range map[string]string{
		"search":  "--trials 6 --top 3 --study x.study",
		"compare": "--methods crepe+sparsegpt,pho --trials 4 --top 2 --patterns 2:4 --eval " + ids + " --study x.study",
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{name, model, "--calibration", ids, "--verify", ids, "--samples", "4", "--seqlen", "64", "--windows", "8", "--json"}, strings.Fields(flags)...)
			home, whole, cut := t.TempDir(), t.TempDir(), t.TempDir()
			want, killed := runKilled(t, whole, home, args, -1)
			if killed {
				t.Fatal("killed, although nobody asked for it")
			}
			kills := 0
			for {
				got, killed := runKilled(t, cut, home, args, 2*kills+1)
				if !killed {
					if !reflect.DeepEqual(got, want) {
						t.Errorf("after %d kills %v, want %v", kills, got, want)
					}
					break
				}
				kills++
			}
			if kills < 5 {
				t.Errorf("killed %d times: shows little", kills)
			}
			sameFiles(t, cut, whole)
			t.Logf("killed %d times", kills)
		})
	}
}

// runKilled runs crepe in dir and kills it as soon as it has written so many lines
// to stderr. It returns the JSON it printed, less what two runs may differ in.
func runKilled(t *testing.T, dir, home string, args []string, lines int) (result any, killed bool) {
	t.Helper()
	c := child(t, dir, home, args)
	var stdout, said bytes.Buffer
	c.Stdout = &stdout
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(stderr); s.Scan(); {
		said.WriteString(s.Text() + "\n")
		if lines--; lines == 0 {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			killed = true
		}
	}
	if err := c.Wait(); err == nil {
		killed = false // it was done before
	} else if !killed {
		t.Fatalf("crepe %s: %v\n%s", strings.Join(args, " "), err, said.String())
	}
	if killed {
		return nil, true
	}
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil {
		t.Fatalf("%v in %q", err, stdout.String())
	}
	return timeless(result), false
}

// child is crepe as a process in dir.
func child(t *testing.T, dir, home string, args []string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), "crepe", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "HF_HUB_OFFLINE=1", "HF_HOME="+home, "XDG_CACHE_HOME="+home)
	return c
}

// A search that writes a model, or a run that packs one, killed as soon as something of its
// files is there, and begun again by the same command until the next is, ends as one that
// nobody killed.
func TestWritingIsKilled(t *testing.T) {
	model, err := filepath.Abs(filepath.Join(fixturesDir, "llama-mha"))
	if err != nil {
		t.Fatal(err)
	}
	ids, verify := idsFile(t, 4, 320, 1), idsFile(t, 8, 320, 2)
	const partial = ".out.crepe-partial"
	for name, c := range map[string]struct {
		flags string
		kills int // at least
		paths []string
	}{
		"search": {"--verify " + verify + " --trials 3 --top 1 --windows 8 --study x.study", 3, []string{
			"x.study", "x.study-journal", "x.study", "out.recipe.yaml", partial, partial + "/journal", partial + "/out", partial + "/out/model.safetensors",
			partial + "/out/tokenizer.json", partial + "/out/crepe.json", "out",
		}},
		"prune": {"--eval " + verify + " --pack int8 --resume", 2, []string{ // what comes between the first and the last is there for a moment
			partial + "/journal", partial + "/out/crepe.json", partial + "/scratch/.made.crepe-partial/journal", partial + "/scratch/.made.crepe-partial/out/crepe-pack.json",
			partial + "/scratch/made", "out",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(name + " " + model + " --calibration " + ids + " --samples 2 --seqlen 64 -o out --json " + c.flags)
			home, whole, cut := t.TempDir(), t.TempDir(), t.TempDir()
			want, _ := runKilled(t, whole, home, args, -1)
			kills := 0
			for _, path := range c.paths {
				if killedAt(t, cut, home, args, path) {
					kills++
				} else if err := os.RemoveAll(filepath.Join(cut, "out")); err != nil { // it was done before: the next has something to do
					t.Fatal(err)
				}
			}
			if kills < c.kills {
				t.Errorf("killed %d times: shows little", kills)
			}
			if got, _ := runKilled(t, cut, home, args, -1); !reflect.DeepEqual(got, want) {
				t.Errorf("after %d kills %v, want %v", kills, got, want)
			}
			sameFiles(t, cut, whole)
			t.Logf("killed %d times", kills)
		})
	}
}

// killedAt runs crepe in dir and kills it as soon as path is there, and reports whether it
// did: the run may end before that is seen.
func killedAt(t *testing.T, dir, home string, args []string, path string) bool {
	t.Helper()
	c := child(t, dir, home, args)
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		if _, err := os.Lstat(filepath.Join(dir, path)); err == nil {
			_ = c.Process.Kill() // it may have ended
		}
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && (!errors.As(err, &exit) || exit.Exited()) {
				t.Fatalf("until there is %s: %v\n%s", path, err, said.String())
			}
			return err != nil
		default:
			time.Sleep(50 * time.Microsecond) // a loop that never waits is seldom there in time
		}
	}
}

// timeless takes out of a report how long things took, what else differs from run to run,
// and which were done before.
func timeless(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for _, key := range []string{"seconds", "kept", "finished", "selected", "peak_rss_bytes", "bench", "decode", "dense_decode"} {
			delete(x, key)
		}
		if _, ok := x["frontier"].(bool); ok { // a point's, by its speed
			delete(x, "frontier")
		}
		for _, e := range x {
			timeless(e)
		}
	case []any:
		for _, e := range x {
			timeless(e)
		}
	}
	return v
}

// sameFiles compares the files of two folders: nothing else is left in got, and all
// are equal but those that no two runs have the same.
func sameFiles(t *testing.T, got, want string) {
	t.Helper()
	g, w := filesIn(t, got), filesIn(t, want)
	if !slices.Equal(slices.Sorted(maps.Keys(g)), slices.Sorted(maps.Keys(w))) {
		t.Errorf("the files are %q, want %q", slices.Sorted(maps.Keys(g)), slices.Sorted(maps.Keys(w)))
	}
	for name := range w {
		if g[name] != w[name] {
			t.Errorf("%s is %.2000q, want %.2000q", name, g[name], w[name])
		}
	}
}

// filesIn returns the files and folders below a path with their content, but that of
// studies, which know the order of the work, and without records of what it took.
func filesIn(t *testing.T, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(path, func(name string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(e.Name(), ".crepe-probe-") { // an empty folder, if the kill came while it was there
			return fs.SkipDir
		}
		if strings.HasSuffix(name, ".run.json") { // written last, and not again
			return nil
		}
		rel, err := filepath.Rel(path, name)
		files[rel] = ""
		if err == nil && !e.IsDir() && filepath.Ext(name) != studySuffix {
			var data []byte
			data, err = os.ReadFile(name)
			files[rel] = string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

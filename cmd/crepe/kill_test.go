package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// A search and a grid whose process is killed at its first line on stderr, begun
// again and killed at the third, and so on, end as those that nobody killed.
func TestKilled(t *testing.T) {
	small := strings.Fields("--samples 4 --seqlen 64 --windows 8 --json")
	for name, args := range map[string][]string{
		"search":  strings.Fields("search demo --trials 6 --top 3 --study x.study"),
		"compare": strings.Fields("compare demo --methods crepe+sparsegpt,pho --trials 4 --top 2 --patterns 2:4"),
	} {
		t.Run(name, func(t *testing.T) {
			args := append(args, small...)
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
	c := exec.CommandContext(t.Context(), "crepe", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "HF_HUB_OFFLINE=1", "HF_HOME="+home, "XDG_CACHE_HOME="+home)
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

// timeless takes out of a report how long things took, and which were done before.
func timeless(v any) any {
	switch x := v.(type) {
	case map[string]any:
		delete(x, "seconds")
		delete(x, "kept")
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
// but studies, which know the order of the work, are equal.
func sameFiles(t *testing.T, got, want string) {
	t.Helper()
	content := func(dir string) map[string]string {
		files := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if err == nil && !e.IsDir() && filepath.Ext(path) != studySuffix {
				var data []byte
				data, err = os.ReadFile(path)
				files[rel] = string(data)
			} else {
				files[rel] = ""
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	if g, w := content(got), content(want); !reflect.DeepEqual(g, w) || len(g) == 0 {
		t.Errorf("files are %v, want %v", g, w)
	}
}

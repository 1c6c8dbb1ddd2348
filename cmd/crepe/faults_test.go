package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/faults"
	"github.com/crepe-llm/crepe/recipe"
)

// TestFaults lets every file operation of a search that writes a model, of a grid, and
// of a frontier fail, those of its study among them: the same command then ends with the
// results and the files of a run that nothing disturbed.
func TestFaults(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	home, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	model := smallModel(t)
	ids, verify := idsFile(t, 1, 320, 1), idsFile(t, 8, 320, 2)
	for name, flags := range map[string]string{
		"search":   "search --verify " + verify + " --sparsity 60% --trials 2 --top 1 -o out --study x.study",
		"compare":  "compare --verify " + verify + " --methods magnitude,pho --trials 2 --top 1 --patterns 2:4 --eval " + verify + " --study x.study",
		"frontier": "compare --methods wanda --patterns 2:4 --frontier --eval " + verify + " --study x.study",
	} {
		t.Run(name, func(t *testing.T) {
			args := append(strings.Fields(flags), model, "--calibration", ids, "--samples", "1", "--seqlen", "64", "--windows", "8", "--threads", "1", "--json")
			// once runs the command in dir and returns what it says.
			once := func(dir string) (report any, err error) {
				if err := os.Chdir(dir); err != nil {
					return nil, err
				}
				defer os.Chdir(home) // the folder is removed before the test ends
				var stdout, stderr bytes.Buffer
				if code := run(args, &stdout, &stderr); code != exitOK {
					return nil, errors.New(stderr.String())
				}
				err = json.Unmarshal(stdout.Bytes(), &report)
				return timeless(report), err
			}
			whole := t.TempDir()
			want, err := once(whole)
			if err != nil {
				t.Fatal(err)
			}
			var got any
			work := func(dir string) (err error) {
				got, err = once(dir)
				return err
			}
			faults.Run{
				Slow:    true,
				Prepare: func(*testing.T, string) {},
				Work:    work,
				GoOn:    work,
				Check: func(t *testing.T, dir string, finished bool) {
					if finished {
						if !reflect.DeepEqual(got, want) {
							t.Errorf("it says %v, want %v", got, want)
						}
						sameFiles(t, dir, whole)
						return
					}
					out := filepath.Join(dir, "out")
					if _, err := os.Lstat(out); err == nil && !reflect.DeepEqual(filesIn(t, out), filesIn(t, filepath.Join(whole, "out"))) {
						t.Error("the output is there, and not as it should be")
					}
					if _, err := recipe.Read(out + ".recipe.yaml"); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("the recipe: %v", err)
					}
				},
			}.Each(t)
		})
	}
}

// smallModel makes a model of few weights, which are drawn at random, in a folder
// small: what takes time is then its files.
func smallModel(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Rename(oneBlock(t, 16, 32, 2), dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.safetensors")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 0))
	for weights := file[8+binary.LittleEndian.Uint64(file):]; len(weights) > 0; weights = weights[2:] {
		binary.LittleEndian.PutUint16(weights, uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
	}
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

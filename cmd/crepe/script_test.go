package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crepe-llm/crepe/internal/faults"
	"github.com/crepe-llm/crepe/internal/fsys"
)

func TestMain(m *testing.M) {
	fsys.WithoutSync() // in the processes that scripts start, too
	faults.SQLite()
	commands := map[string]func(){"crepe": main, impatient: impatientMain}
	for _, name := range builds {
		commands[name] = main
	}
	testscript.Main(withPostgreSQL{m}, commands)
}

// TestScript runs the command lines in testdata/script as a user would type
// them, each in an empty folder with an empty home and no network.
func TestScript(t *testing.T) { testscript.Run(t, scriptParams(t, "testdata/script")) }

// scriptParams are for the scripts in dir. MODEL is there a small model of which a
// search takes no time, and IDS a file of eight texts for it.
func scriptParams(t *testing.T, dir string) testscript.Params {
	model, ids := smallModel(t), idsFile(t, 8, 320, 1)
	return testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HF_HUB_OFFLINE", "1")
			e.Setenv("HF_HOME", e.WorkDir+"/hf")
			e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/cache")
			e.Setenv("CREPE_CPU", os.Getenv("CREPE_CPU"))
			e.Setenv("MODEL", model)
			e.Setenv("IDS", ids)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"json": jsonCmd, "poke": pokeCmd},
	}
}

// jsonCmd is "json FILE key.key VALUE": the JSON in FILE (stdout for the last
// command's) has the value at the path; "json FILE key.key" that there is one.
func jsonCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: json FILE path [value]")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	for _, key := range strings.Split(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(x) {
				ts.Fatalf("%s: no element %s", args[1], key)
			}
			v = x[i]
		default:
			v = nil
		}
	}
	got, err := json.Marshal(v)
	ts.Check(err)
	ok := v != nil
	if len(args) == 3 {
		ok = string(got) == args[2] || string(got) == `"`+args[2]+`"`
	}
	if ok == neg {
		ts.Fatalf("%s is %s", args[1], got)
	}
}

// pokeCmd is "poke FILE OFFSET BYTES": overwrite bytes of a file (hexadecimal).
// A negative offset cuts the file there, from its end.
func pokeCmd(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	var at int64
	_, err := fmt.Sscan(args[1], &at)
	ts.Check(err)
	data, err := os.ReadFile(path)
	ts.Check(err)
	if at < 0 {
		ts.Check(os.WriteFile(path, data[:int64(len(data))+at], 0o666))
		return
	}
	var bytes []byte
	_, err = fmt.Sscanf(args[2], "%x", &bytes)
	ts.Check(err)
	copy(data[at:], bytes)
	ts.Check(os.WriteFile(path, data, 0o666))
}

package task

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/hub"
)

const parquetDir = "testdata/parquet"

// TestParquet holds the documents of Parquet files, in the datasets' own types,
// to those of the same rows as JSON lines, which the harness was given.
func TestParquet(t *testing.T) {
	want, err := Load(t.Context(), tasks, "testdata/data", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(t.Context(), tasks, parquetDir, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range got {
		if len(s.Documents) < 60 || !reflect.DeepEqual(s, want[i]) {
			t.Errorf("%s: %d documents that are not those of the JSON lines", s.Task.Name, len(s.Documents))
		}
	}
	few, err := Load(t.Context(), []*Task{arcChallenge}, parquetDir, nil, 40) // more than a shard has
	if err != nil || len(few[0].Documents) != 40 || !reflect.DeepEqual(few[0].Documents, want[5].Documents[:40]) {
		t.Errorf("limit 40: %d documents, %v", len(few[0].Documents), err)
	}
}

func TestParquetThatCannotBeUsed(t *testing.T) {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(parquetDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	arc := read("arc_easy/test-00000-of-00001.parquet")
	for _, c := range []struct {
		task       *Task
		data, want string
	}{
		{rte, read("boolq/validation-00000-of-00001.parquet"), `no column sentence1; there are "question" "passage" "idx" "label"`},
		{boolq, read("mnli/validation_matched-00000-of-00001.parquet"), `no column passage; there are "premise" "hypothesis" "label" "idx"`},
		{arcChallenge, arc[:len(arc)-1], "not a Parquet file, or truncated"},
		{arcChallenge, strings.Replace(arc, "PAR1", "PAR2", 1), `begins with "PAR2"`},
	} {
		name := c.task.Split + "-00000-of-00001.parquet"
		dir := folder(t, c.task, map[string]string{name: c.data})
		_, err := Load(t.Context(), []*Task{c.task}, dir, nil, 0)
		if err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, c.task.Name, name)+": ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	// A column of the wrong type, at its first row.
	same := &Task{Name: "same", Split: "validation", gold: label,
		requests: func(r *row) []Request { return choices(r.text("idx"), "a", "b") }}
	dir := folder(t, same, map[string]string{"validation.parquet": read("boolq/validation-00000-of-00001.parquet")})
	if _, err := Load(t.Context(), []*Task{same}, dir, nil, 0); err == nil || !strings.HasSuffix(err.Error(), "validation.parquet: row 1: column idx: 0, want a string") {
		t.Errorf("got %v, want row 1 and column idx", err)
	}
}

// fakeHub serves the Parquet files as the hub does, under the paths that the
// datasets' repositories have.
func fakeHub(t *testing.T) *httptest.Server {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	files := map[string]map[string][]byte{} // by repository and path
	for _, task := range tasks {
		if files[task.repo] == nil {
			files[task.repo] = map[string][]byte{"README.md": nil, task.folder + "/train-00000-of-00001.parquet": nil}
		}
		names, err := task.files(filepath.Join(parquetDir, task.Name))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[task.repo][task.folder+"/"+filepath.Base(name)] = data
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/api/datasets/"); ok {
			list := map[string]any{"sha": commit}
			var siblings []map[string]string
			for p := range files[strings.TrimSuffix(rest, "/revision/main")] {
				siblings = append(siblings, map[string]string{"rfilename": p})
			}
			list["siblings"] = siblings
			_ = json.NewEncoder(w).Encode(list)
			return
		}
		repo, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/datasets/"), "/resolve/"+commit+"/")
		data, ok := files[repo][file]
		if !ok || path.Ext(file) != ".parquet" || strings.HasPrefix(path.Base(file), "train") {
			t.Errorf("asked for %s, which no task reads", r.URL.Path)
			http.NotFound(w, r)
			return
		}
		sum := sha256.Sum256(data)
		w.Header().Set("X-Repo-Commit", commit)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		_, _ = w.Write(data)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestHub(t *testing.T) {
	server := fakeHub(t)
	for _, name := range []string{"HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", server.URL)
	h := hub.FromEnv()
	want, err := Load(context.Background(), tasks, "testdata/data", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, h.Offline = range []bool{false, true} {
		got, err := Load(context.Background(), tasks, "", h, 0)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("offline %v: %v, or other documents than the JSON lines'", h.Offline, err)
		}
	}
	// Another repository's data is cached, this one's not.
	h.Cache = t.TempDir()
	_, err = Load(context.Background(), []*Task{mnli}, "", h, 0)
	wantErr := "/datasets/nyu-mll/glue/resolve/main/mnli/validation_matched-00000-of-00001.parquet elsewhere, put it at DIR/mnli/validation_matched-00000-of-00001.parquet and give --tasks-data DIR"
	if err == nil || !strings.HasPrefix(err.Error(), "task mnli: ") || !strings.HasSuffix(err.Error(), wantErr) || !strings.Contains(err.Error(), "HF_HUB_OFFLINE is set") {
		t.Errorf("offline, not cached: %v, want … %s", err, wantErr)
	}
	h.Offline = false
	if _, err := Load(context.Background(), []*Task{mnli}, "", h, 1); err != nil {
		t.Fatal(err)
	}
	h.Offline = true
	if _, err = Load(context.Background(), []*Task{rte}, "", h, 0); err == nil || !strings.Contains(err.Error(), "no such folder") || !strings.Contains(err.Error(), "DIR/rte/validation-00000-of-00001.parquet") {
		t.Errorf("offline, the repository's other data cached: %v", err)
	}
}

package corpus

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/hub"
)

// write makes a file of that name and content.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func zipped(t testing.TB, content string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func source(t *testing.T, s string) Source {
	t.Helper()
	src, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// all returns the documents of a source.
func all(t *testing.T, s string) []string {
	t.Helper()
	docs, err := source(t, s).Documents(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer docs.Close()
	got := make([]string, docs.Len())
	for i := len(got) - 1; i >= 0; i-- { // any order will do
		if got[i], err = docs.Text(i); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func TestParse(t *testing.T) {
	for _, name := range []string{"demo", "wikitext2", "c4"} {
		s := source(t, name)
		if s.String() != name || s.Tokens() || s.Local() != (name == "demo") || s.MaxWindows() != map[string]int{"c4": 256}[name] {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s := source(t, write(t, "X.SafeTensors", "")); !s.Tokens() || !s.Local() {
		t.Error("a .safetensors file holds tokens")
	}
	for s, want := range map[string]string{
		"":                      "unknown text source",
		"wikitext":              "known: demo, wikitext2, c4",
		"x.csv":                 ".parquet",
		"missing.txt":           "missing.txt",
		t.TempDir() + "/.jsonl": "no such file",
	} {
		if _, err := Parse(s); err == nil || !strings.Contains(err.Error(), want) && runtime.GOOS != "windows" {
			t.Errorf("Parse(%q): %v, want %q in it", s, err, want)
		}
	}
	folder := filepath.Join(t.TempDir(), "x.txt")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(folder); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Parse of a folder: %v", err)
	}
}

func TestDemo(t *testing.T) {
	docs := all(t, "demo")
	if len(docs) != 55 || !strings.HasPrefix(docs[0], " Fellow-Citizens of the Senate") {
		t.Errorf("%d documents, the first %.40q", len(docs), docs[0])
	}
	text, err := source(t, "demo").Text(t.Context(), nil)
	if err != nil || len(text) != 1287656 || !strings.HasPrefix(text, " = Robert Boulter = \n") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestTextFile(t *testing.T) {
	path := write(t, "a.txt", "\xef\xbb\xbf = é = \r\n\r\nx\ry\n")
	const want = " = é = \n\nx\ry\n"
	if got, err := source(t, path).Text(t.Context(), nil); err != nil || got != want {
		t.Errorf("Text = %q, %v, want %q", got, err, want)
	}
	docs, err := source(t, path).Documents(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := docs.Text(0); err != nil || got != want || docs.Len() != 1 || !docs.Running() || docs.Close() != nil {
		t.Errorf("document %q, %v, of %d", got, err, docs.Len())
	}
	for content, want := range map[string]string{"": "empty", "ab\xff\xfe": "byte 0xff at offset 2", "\xff\xfea\x00": "not UTF-8"} {
		if _, err := source(t, write(t, "b.txt", content)).Text(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", content, err, want)
		}
	}
}

const lines = "\xef\xbb\xbf{\"text\": \"one\\n\", \"id\": 1}\r\n\n{\"Text\": 3, \"text\": \"zwei \\u00e9\"}\n  \n{\"text\": \" \\t\"}\n{\"text\":\"end\"}"

func TestJSONLines(t *testing.T) {
	want := []string{"one\n", "zwei é", " \t", "end"}
	for name, content := range map[string]string{
		"a.jsonl": lines, "a.json": lines, "a.jsonl.gz": zipped(t, lines), "a.JSON.gz": zipped(t, lines),
		"two.json.gz":    zipped(t, lines[:60]) + zipped(t, lines[60:]), // members, as C4's writer makes them
		"padded.json.gz": zipped(t, lines[:60]) + "\x00\x00" + zipped(t, lines[60:]) + strings.Repeat("\x00", 1<<20),
		"nan.jsonl":      strings.Replace(lines, `"id": 1`, `"id": NaN, "x": [-Infinity, "NaN"]`, 1),
	} {
		path := write(t, name, content)
		if got := all(t, path); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if got, err := source(t, path).Text(t.Context(), nil); err != nil || got != "one\n\n\nzwei é\n\n\n\nend" {
			t.Errorf("%s: Text = %q, %v", name, got, err)
		}
	}
}

func TestJSONLinesRefuses(t *testing.T) {
	gz := zipped(t, strings.Repeat(lines[3:]+"\n", 10000))
	for _, tc := range []struct{ name, content, want string }{
		{"a.jsonl", "", "no documents"},
		{"a.jsonl", " \n\n", "no documents"},
		{"a.jsonl", "{\"text\": \"a\"}\n3\n", "document 2: \"3\", want a JSON object"},
		{"a.jsonl", "[{\"text\": \"a\"}]", "document 1: a JSON array, want one object on each line"},
		{"a.json", "[\n {\n  \"text\": \"a\"\n }\n]\n", "document 1: a JSON array"},
		{"a.json", "{\n  \"text\": \"a\"\n}\n", "document 1: want a JSON object on a line"},
		{"a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xe9t\xe9\"}\n", "document 2: not UTF-8 text: byte 0xe9 at offset 10"},
		{"a.jsonl.gz", zipped(t, "{\"text\": \"a\"}\n{\"text\": \"\xe9t\xe9\"}\n"), "document 2: not UTF-8 text: byte 0xe9 at offset 10"},
		{"a.jsonl", "{\"text\": \"a\"}\n{\"id\": \"\xff\", \"text\": \"\"}\n", "document 2: not UTF-8 text: byte 0xff at offset 8"},
		{"a.jsonl", `{"text": "a \\ \ud83d b"}`, `document 1: field "text": half a surrogate pair: \ud83d at offset 6`},
		{"a.jsonl", `{"text": NaN}`, `field "text": NaN, want a string`},
		{"a.jsonl.gz", zipped(t, lines) + "\x00\x00garbage in place of a header", "gzip"},
		{"a.jsonl", "{\"text\": \"a\"}\n{\"body\": \"a\"}\n", `document 2: no field "text"`},
		{"a.jsonl", `{"text": null}`, "null, want a string"},
		{"a.jsonl", `{"text": ["a"]}`, "want a string"},
		{"a.jsonl", `{"text": "a"`, "document 1"},
		{"a.jsonl.gz", "{\"text\": \"not compressed\"}", "gzip"},
		{"a.jsonl.gz", gz[:len(gz)/2], "unexpected EOF"},
		{"a.jsonl.gz", gz[:len(gz)-6] + "xx" + gz[len(gz)-4:], "checksum"},
	} {
		path := write(t, tc.name, tc.content)
		_, err := source(t, path).Text(t.Context(), nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.30q: %v, want %q and the name in it", tc.content, err, tc.want)
		}
	}
}

func TestLineLimit(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(`{"text": "`), repeat('x'))
	_, err := indexLines(t.Context(), "endless.jsonl", endless, io.Discard, maxDocuments)
	if err == nil || !strings.Contains(err.Error(), "document 1: line of more than") {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := indexLines(ctx, "x", repeat('\n'), io.Discard, maxDocuments); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want %v", err, context.Canceled)
	}
}

type repeat byte

func (c repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

// A compressed collection must take memory for its offsets, not for its text.
func TestCompressedLinesTakeBoundedMemory(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp)
	line := `{"text": "` + strings.Repeat("calibration ", 1000) + "\"}\n" // 12 KB
	path := write(t, "a.jsonl.gz", zipped(t, strings.Repeat(line, 2000)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	src := source(t, path)
	var done, total int64
	src.Progress = func(d, t int64) { done, total = d, t }
	docs, err := src.Documents(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || done != info.Size() || total != info.Size() {
		t.Errorf("last progress %d of %d, want %d of it, %v", done, total, info.Size(), err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 { // buffers of 3 MB and 2000 offsets; the text has 24 MB
		t.Errorf("%d bytes were allocated", got)
	}
	if text, err := docs.Text(1999); err != nil || len(text) != 12000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if err := docs.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What a small file is unpacked to has a bound, as have its documents.
func TestPackedBombs(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp)
	for name, c := range map[string]struct{ line, want string }{
		"bytes":     {`{"text": "` + strings.Repeat("a", 1<<20) + "\"}\n", "more than 1"},
		"documents": {strings.Repeat("{\"text\":\"\"}\n", 1000), "documents"},
	} {
		path := write(t, name+".jsonl.gz", zipped(t, strings.Repeat(c.line, 200)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := source(t, path).Documents(t.Context(), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
			t.Errorf("%s: %d bytes were allocated", name, got)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
	}
}

func TestParquet(t *testing.T) {
	path := "../internal/parquet/testdata/dictionary-snappy.parquet"
	docs := all(t, path)
	if len(docs) != 400 || docs[0] != "" || !strings.HasPrefix(docs[1], " row 1 é世 ") {
		t.Errorf("%d documents, %q", len(docs), docs[:2])
	}
	text, err := source(t, path).Text(t.Context(), nil)
	if err != nil || text != strings.Join(docs, "\n\n") {
		t.Errorf("Text of %d bytes, %v", len(text), err)
	}
	for name, want := range map[string]string{"bad-null": "null", "bad-nothing": "no column text"} {
		path := "../internal/parquet/testdata/" + name + ".parquet"
		if _, err := source(t, path).Documents(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := source(t, "../internal/parquet/testdata/bad-bytes.parquet").Documents(t.Context(), nil); err == nil ||
		!strings.Contains(err.Error(), "document 2: not UTF-8 text: byte 0xff at offset 0") {
		t.Errorf("bytes that are not UTF-8: %v", err)
	}
	if _, err := source(t, write(t, "a.parquet", "x")).Text(t.Context(), nil); err == nil {
		t.Error("not a Parquet file: no error")
	}
}

func TestBlank(t *testing.T) {
	for s, want := range map[string]bool{"": true, " \n\t\r\v\f\x1c\x1f\u00a0\u2003\u0085": true, " a": false, "\u200b": false, "\x00": false} {
		if blank(s) != want {
			t.Errorf("blank(%q) = %v", s, !want)
		}
	}
}

// datasets serves files as the hub's datasets do.
func datasets(t *testing.T, files map[string][]byte) *hub.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[strings.Replace(r.URL.Path, "/resolve/0123456789abcdef0123456789abcdef01234567/", "/resolve/main/", 1)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
		w.Header().Set("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		w.Write(data)
	}))
	t.Cleanup(server.Close)
	for _, name := range []string{"HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", server.URL)
	return hub.FromEnv()
}

func TestNamedDatasets(t *testing.T) {
	train, err := os.ReadFile("../internal/parquet/testdata/dictionary-zstd-v2.parquet")
	if err != nil {
		t.Fatal(err)
	}
	test, err := os.ReadFile("../internal/parquet/testdata/plain-none.parquet")
	if err != nil {
		t.Fatal(err)
	}
	const n = 1200
	var validation strings.Builder
	for i := range n {
		fmt.Fprintf(&validation, "{\"text\": \"document %d\"}\n", i)
	}
	h := datasets(t, map[string][]byte{
		"/datasets/Salesforce/wikitext/resolve/main/wikitext-2-raw-v1/train-00000-of-00001.parquet": train,
		"/datasets/Salesforce/wikitext/resolve/main/wikitext-2-raw-v1/test-00000-of-00001.parquet":  test,
		"/datasets/allenai/c4/resolve/main/en/c4-train.00000-of-01024.json.gz":                      []byte(zipped(t, validation.String()[:len("{\"text\": \"document 0\"}\n")*2])),
		"/datasets/allenai/c4/resolve/main/en/c4-validation.00000-of-00008.json.gz":                 []byte(zipped(t, validation.String())),
	})
	rows := all(t, "../internal/parquet/testdata/plain-none.parquet")

	docs, err := source(t, "wikitext2").Documents(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := docs.Text(0); err != nil || !docs.Running() || got != strings.Join(rows, " ") {
		t.Errorf("wikitext2 train: %d bytes, %v, running %v", len(got), err, docs.Running())
	}
	if got, err := source(t, "wikitext2").Text(t.Context(), h); err != nil || got != strings.Join(rows, "\n\n") {
		t.Errorf("wikitext2 test: %d bytes, %v", len(got), err)
	}
	c4docs, err := source(t, "c4").Documents(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer c4docs.Close()
	if got, err := c4docs.Text(1); err != nil || got != "document 1" || c4docs.Len() != 2 || c4docs.Running() {
		t.Errorf("c4 train: %q, %v, %d documents", got, err, c4docs.Len())
	}
	got, err := source(t, "c4").Text(t.Context(), h)
	if err != nil || !strings.HasPrefix(got, "document 0 document 1 ") || !strings.HasSuffix(got, " document 1099") {
		t.Errorf("c4 validation: %.30q … %v", got, err)
	}

	h.Offline, h.Cache = true, t.TempDir()
	_, err = source(t, "c4").Locate(t.Context(), h, Calibration)
	for _, want := range []string{"c4-train.00000-of-01024.json.gz", "HF_HUB_OFFLINE", h.Cache, h.Endpoint + "/datasets/allenai/c4/resolve/main/en/", "any text file will do"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("offline: %v, want %q in it", err, want)
		}
	}
}

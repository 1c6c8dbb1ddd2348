// Package archtest holds the project's structure to its plan.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/crepe-llm/crepe/"

// layers is the plan: a package imports packages of lower layers only, so data
// flows one way. A new package is placed here when it is made.
var layers = map[string]int{
	"internal/cpu":       0,
	"internal/fsys":      0,
	"internal/faults":    1,
	"provenance":         0,
	"internal/parallel":  0,
	"progress":           0,
	"internal/pages":     0,
	"internal/sysinfo":   0,
	"internal/registry":  0,
	"internal/pyjson":    0,
	"internal/splitmix":  0,
	"internal/jinja":     0,
	"internal/regular":   0,
	"pattern":            0,
	"internal/golden":    0,
	"param":              0,
	"internal/kernel":    1,
	"tokenizer":          1,
	"internal/onig":      0,
	"hub":                1,
	"demo":               1,
	"tensor":             2,
	"checkpoint":         3,
	"gguf":               3,
	"gguf/hf":            4,
	"mask":               3,
	"stats":              3,
	"linalg":             3,
	"fit":                4,
	"rebuild":            4,
	"update":             5,
	"refine":             5,
	"allocate":           4,
	"permute":            4,
	"corpus":             3,
	"internal/parquet":   0,
	"model":              5,
	"score":              4,
	"calibration":        4,
	"engine":             4,
	"engine/cpu":         5,
	"engine/cuda/driver": 5,
	"engine/cuda":        6,
	"engine/reference":   5,
	"engine/enginetest":  6,
	"chat":               2,
	"generate":           6,
	"pack":               6,
	"batch":              7,
	"talk":               8,
	"serve":              9,
	"internal/hidden":    6,
	"recipe":             6,
	"eval":               7,
	"eval/task":          7,
	"windows":            7,
	"rotate":             4,
	"rotate/rotated":     7,
	"search":             1,
	"search/store":       2,
	"search/queue":       2,
	"prune":              8,
	"internal/bench":     8,
	"pho":                9,
	"session":            9,
	"verify":             9,
	"grid":               10,
	"report":             11,
	"report/live":        12,
	"cmd/crepe":          13,

	"search/queue/pgtest":  0, // for tests
	"internal/browsertest": 0, // for tests
}

func TestPackagesImportLowerLayersOnly(t *testing.T) {
	seen := map[string]bool{}
	eachImport(t, func(pkg, file, path string) {
		seen[pkg] = true
		layer, ok := layers[pkg]
		if !ok {
			t.Errorf("%s: package %s has no layer; place it in the table", file, pkg)
			return
		}
		dep, ours := strings.CutPrefix(path, module)
		if ours && layers[dep] >= layer {
			t.Errorf("%s: %s (layer %d) imports %s (layer %d), want a lower layer", file, pkg, layer, dep, layers[dep])
		}
	})
	for pkg := range layers {
		if !seen[pkg] {
			t.Errorf("the table names %s, which has no Go file", pkg)
		}
	}
}

// A run is repeatable only if all randomness comes from its seed.
func TestNoGlobalRandomness(t *testing.T) {
	eachImport(t, func(pkg, file, path string) {
		if path == "math/rand" || path == "math/rand/v2" || path == "C" {
			t.Errorf("%s imports %s", file, path)
		}
	})
}

// What a run writes goes through fsys, which follows no link and whose operations
// tests make fail: one that went past it would not be among those.
func TestRunsWriteByFsys(t *testing.T) {
	writes := map[string]bool{
		"Create": true, "CreateTemp": true, "OpenFile": true, "WriteFile": true, "CopyFS": true,
		"Mkdir": true, "MkdirAll": true, "MkdirTemp": true, "Remove": true, "RemoveAll": true,
		"Rename": true, "Truncate": true, "Chmod": true, "Link": true, "Symlink": true,
	}
	files := 0
	for _, pkg := range []string{"checkpoint", "prune", "internal/hidden", "pho", "grid"} {
		paths, err := filepath.Glob(filepath.Join("../..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			files++
			set := token.NewFileSet()
			src, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(src, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && writes[s.Sel.Name] {
					if x, ok := s.X.(*ast.Ident); ok && x.Name == "os" {
						t.Errorf("%v: os.%s, want that of fsys", set.Position(s.Pos()), s.Sel.Name)
					}
				}
				return true
			})
		}
	}
	if files == 0 {
		t.Fatal("no Go files found")
	}
}

// eachImport calls f for each import of each file that is built into the product.
func eachImport(t *testing.T, f func(pkg, file, path string)) {
	t.Helper()
	const root = "../.."
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name == "gen" || name == "tools" || strings.HasPrefix(name, ".") && path != root {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(rel))
		src, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		f(pkg, rel, "")
		for _, imp := range src.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			f(pkg, rel, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no Go files found")
	}
}

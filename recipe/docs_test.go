package recipe

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocumentedParameters holds the table of docs/methods.md to the declarations.
func TestDocumentedParameters(t *testing.T) {
	const path = "../docs/methods.md"
	var table strings.Builder
	table.WriteString("| recipe key | flag | read by | meaning | allowed | default |\n|---|---|---|---|---|---|\n")
	for _, p := range Parameters() {
		var readers, defaults []string
		for _, r := range p.Readers {
			readers = append(readers, "`"+r.Method+"`")
			defaults = append(defaults, fmt.Sprintf("%s: %v", r.Method, r.Default))
		}
		if p.OneDefault() {
			defaults = []string{fmt.Sprint(p.Default)}
		}
		fmt.Fprintf(&table, "| `%s` | `--%s` | %s | %s | %s | %s |\n",
			p.Name, p.Flag(), strings.Join(readers, ", "), p.Doc, p.Allowed(), strings.Join(defaults, ", "))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n\n"+table.String()+"\n") {
		t.Errorf("%s has no table\n\n%s", path, &table)
	}
}

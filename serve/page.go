package serve

import (
	_ "embed"
	"net/http"
)

//go:embed page.html
var page []byte

// servePage serves the page that shows the models' answers side by side. It
// loads nothing from elsewhere, and nobody can put it into a page of theirs.
func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'")
	w.Write(page)
}

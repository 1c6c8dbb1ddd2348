package report

import (
	"bytes"
	_ "embed"
	"html/template"
	"io"
)

//go:embed assets/page.html
var page string

//go:embed assets/style.css
var style string

//go:embed assets/report.js
var script string

//go:embed assets/live.js
var liveScript string

// echarts is Apache ECharts 6.1.0 as its makers built it, under the Apache licence
// 2.0; assets has its licence and notice.
//
//go:embed assets/echarts.min.js
var echarts string

var tmpl = template.Must(template.New("page").Parse(page))

type pageData struct {
	Title   string
	Style   template.CSS
	ECharts template.JS
	Script  template.JS
	Live    template.JS // empty of a file
	Data    *Document
}

// Write writes d as one HTML file that needs nothing else.
func Write(w io.Writer, d *Document) error { return write(w, d, "") }

// IsPage reports whether what r reads begins as a page of Write's does.
func IsPage(r io.Reader) bool {
	begin := make([]byte, 256)
	n, _ := io.ReadFull(r, begin)
	return bytes.Contains(begin[:n], []byte(`<meta name="generator" content="crepe">`))
}

// WriteLive writes a page that shows d, and from then on what the server that it came
// from tells it.
func WriteLive(w io.Writer, d *Document) error { return write(w, d, liveScript) }

func write(w io.Writer, d *Document, live string) error {
	return tmpl.Execute(w, pageData{
		Title: d.Title, Style: template.CSS(style), ECharts: template.JS(echarts), Script: template.JS(script), Live: template.JS(live), Data: d,
	})
}

package serve

import (
	"fmt"
	"net/http"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/talk"
)

// metrics are what /metrics says.
type metrics struct {
	set  *vm.Set
	gone *vm.Counter
}

func newMetrics(models []*talk.Model) *metrics {
	m := &metrics{set: vm.NewSet()}
	m.gone = m.set.NewCounter("crepe_requests_abandoned_total")
	for _, model := range models {
		for name, of := range map[string]func(c batch.Counts) int64{
			"crepe_texts_running":              func(c batch.Counts) int64 { return int64(c.Running) },
			"crepe_texts_waiting":              func(c batch.Counts) int64 { return int64(c.Waiting) },
			"crepe_cache_reserved_bytes":       func(c batch.Counts) int64 { return c.CacheBytes },
			"crepe_texts_total":                func(c batch.Counts) int64 { return c.Requests },
			"crepe_texts_refused_total":        func(c batch.Counts) int64 { return c.Refused },
			"crepe_prompt_tokens_total":        func(c batch.Counts) int64 { return c.Prompt },
			"crepe_prompt_tokens_shared_total": func(c batch.Counts) int64 { return c.Shared },
			"crepe_generated_tokens_total":     func(c batch.Counts) int64 { return c.New },
			"crepe_steps_total":                func(c batch.Counts) int64 { return c.Steps },
		} {
			m.set.NewGauge(labelled(name, model.Name), func() float64 { return float64(of(model.Runner.Counts())) })
		}
	}
	return m
}

func labelled(name, model string) string { return fmt.Sprintf("%s{model=%q}", name, model) }

// first says how long the first token of an answer took.
func (m *metrics) first(model string, d time.Duration) {
	m.set.GetOrCreateHistogram(labelled("crepe_time_to_first_token_seconds", model)).Update(d.Seconds())
}

// answered says how long an answer took.
func (m *metrics) answered(model string, u usage, d time.Duration) {
	m.set.GetOrCreateCounter(labelled("crepe_requests_answered_total", model)).Inc()
	m.set.GetOrCreateHistogram(labelled("crepe_request_seconds", model)).Update(d.Seconds())
}

// failed counts an error that was sent.
func (m *metrics) failed(status int) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`crepe_requests_failed_total{status="%d"}`, status)).Inc()
}

func (m *metrics) serve(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	m.set.WritePrometheus(w)
	vm.WriteProcessMetrics(w)
}

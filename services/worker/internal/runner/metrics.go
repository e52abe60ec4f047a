package runner

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	steps          *prometheus.CounterVec
	claims         *prometheus.CounterVec
	entries        *prometheus.CounterVec
	returned       *prometheus.CounterVec
	values         *prometheus.CounterVec
	messages       prometheus.Counter
	republished    prometheus.Counter
	refused        prometheus.Counter
	cuts           prometheus.Counter
	held           prometheus.Counter
	suspects       prometheus.Counter
	inflight       prometheus.Gauge
	paused         *prometheus.GaugeVec
	claimLatency   prometheus.Histogram
	confirmLatency prometheus.Histogram

	succeeded sync.Map // type → counter: looking labels up costs more than a pure step
}

// step counts a success.
func (m *metrics) step(typ string) prometheus.Counter {
	if c, ok := m.succeeded.Load(typ); ok {
		return c.(prometheus.Counter)
	}
	c := m.steps.WithLabelValues(typ, "succeeded")
	m.succeeded.Store(typ, c)
	return c
}

func newMetrics(reg prometheus.Registerer, r *Runner) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)})
		reg.MustRegister(h)
		return h
	}
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	m := &metrics{
		steps:          vec("worker_steps_total", "Tries of nodes by type and outcome: succeeded, failed, waiting, cut.", "type", "outcome"),
		claims:         vec("worker_claims_total", "Claims by answer; unanswered ones are asked again.", "answer"),
		entries:        vec("worker_report_entries_total", "Entries of reports by kind, each counted once.", "kind"),
		returned:       vec("worker_tasks_handed_on_total", "Tasks that were not run here, by reason.", "reason"),
		values:         vec("worker_values_total", "Large values by what became of them: stored, fetched, cached (no need to fetch), unanswered (tried again).", "outcome"),
		messages:       counter("worker_report_messages_total", "Report messages published, repeats included."),
		republished:    counter("worker_report_entries_republished_total", "Entries whose message wasn't confirmed and that were published again."),
		refused:        counter("worker_results_refused_total", "Results of steps that the engine refused: a mistake of ours."),
		cuts:           counter("worker_calls_cut_total", "Calls that were ended because the window closed or the run had to stop."),
		held:           counter("worker_effects_held_total", "Effects that did not begin because the window was closed."),
		suspects:       counter("worker_suspects_total", "Executions that ran alone because workers had died while they owned them."),
		claimLatency:   histogram("worker_claim_seconds", "Duration of a request for claims."),
		confirmLatency: histogram("worker_report_confirm_seconds", "From a report's making to its confirm."),
		inflight:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "worker_effects_in_flight", Help: "Effects in flight."}),
	}
	m.paused = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "worker_paused", Help: "1 while nothing new is begun, by reason: alarm (the broker takes no reports), memory."}, []string{"reason"})
	reg.MustRegister(m.inflight, m.paused)
	gauge("worker_slots", "Slots for executions, as tuned.", func() float64 { slots, _, _ := r.Load(); return float64(slots) })
	gauge("worker_runs", "Executions that run here.", func() float64 { _, running, _ := r.Load(); return float64(running) })
	gauge("worker_buffered", "Tasks delivered and not begun.", func() float64 { _, _, buffered := r.Load(); return float64(buffered) })
	gauge("worker_runs_held", "Executions that run here while the trust window is closed.", func() float64 {
		if _, open := r.window.Current(); open {
			return 0
		}
		_, running, _ := r.Load()
		return float64(running)
	})
	return m
}

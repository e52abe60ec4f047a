package catch

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	catches  *prometheus.CounterVec
	lateness prometheus.Histogram
	failed   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		catches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_error_triggers_total", Help: "Bad ends of executions at each trigger.error that asks for them, by what became of them: started, skipped (a circle), refused (the flow could not be started)."}, []string{"outcome"}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_error_triggers_lateness_seconds", Help: "From an execution's bad end to the commit that starts its error flows.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_error_triggers_failed_total", Help: "Looks and commits that failed and are tried again."}),
	}
	reg.MustRegister(m.catches, m.lateness, m.failed)
	return m
}

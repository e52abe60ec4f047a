package schedule

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	fires    *prometheus.CounterVec
	lateness prometheus.Histogram
	behind   prometheus.Gauge
	failed   *prometheus.CounterVec
	dropped  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		fires: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_schedule_fires_total", Help: "Fires of schedules by what became of them: started, skipped (overlap), missed (catch-up), refused (the flow could not be started)."}, []string{"outcome"}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_schedule_lateness_seconds", Help: "From the instant that a fire was due to its commit, of those that are not caught up.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}}),
		behind:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_schedule_behind_seconds", Help: "How long the first schedule that could not be fired has been due, as the leader saw it last; 0: none is."}),
		failed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_schedule_failed_total", Help: "Looks and fires that failed and are tried again, by step: look, prepare, fire."}, []string{"step"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_schedule_plans_dropped_total", Help: "Plans for schedules that somebody has changed meanwhile; they are made anew."}),
	}
	reg.MustRegister(m.fires, m.lateness, m.behind, m.failed, m.dropped)
	return m
}

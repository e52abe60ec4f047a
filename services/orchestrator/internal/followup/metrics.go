package followup

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	handed         prometheus.Counter
	handOutSeconds prometheus.Histogram
	failed, drops  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		handed: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_followup_handed_out_total", Help: "Tasks handed out after a commit of this orchestrator, confirmed by the broker."}),
		handOutSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_followup_hand_out_seconds",
			Help: "Reading, publishing and marking a batch of tasks.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_followup_failed_total", Help: "Items that failed and are left to the reconciler."}, []string{"kind"}),
		drops: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_followup_dropped_total",
			Help: "Items dropped because their queue was full or their receiver away: events (live view), cancels (the renewal carries them), tasks (the reconciler hands them out), mail (the leader sweeps it)."}, []string{"kind"}),
	}
	for _, kind := range []string{"tasks", "events", "cancels", "mail"} {
		m.drops.WithLabelValues(kind)
	}
	reg.MustRegister(m.handed, m.handOutSeconds, m.failed, m.drops)
	return m
}

func (m *metrics) dropped(kind string, n int) {
	if n > 0 {
		m.drops.WithLabelValues(kind).Add(float64(n))
	}
}

package sessions

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	opened       prometheus.Counter
	refused      prometheus.Counter
	ended        *prometheus.CounterVec
	renewBatch   prometheus.Histogram
	renewSeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		opened:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_sessions_opened_total", Help: "Sessions opened through this orchestrator."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_sessions_refused_total", Help: "Renewals of sessions that are over: their workers drop what they hold."}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_sessions_ended_total",
			Help: "Sessions ended through this orchestrator, by proof: successor (it holds the lock), stopped (by its own worker). The leader counts those that the lease ended."}, []string{"by"}),
		renewBatch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_sessions_renew_batch_size",
			Help: "Renewals in one statement.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000}}),
		renewSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_sessions_renew_seconds",
			Help: "Transaction of a batch of renewals.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13)}),
	}
	reg.MustRegister(m.opened, m.refused, m.ended, m.renewBatch, m.renewSeconds)
	return m
}

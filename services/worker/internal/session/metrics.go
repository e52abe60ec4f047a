package session

import "github.com/prometheus/client_golang/prometheus"

// Metrics of a Keeper.
type Metrics struct {
	renewals *prometheus.CounterVec
	latency  prometheus.Histogram
	opened   prometheus.Counter
	closed   prometheus.Counter
	died     prometheus.Counter
}

// NewMetrics makes and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "worker_session_renewals_total", Help: "Renewals of the session by outcome: ok, failed, dead."}, []string{"outcome"}),
		latency:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "worker_session_call_seconds", Help: "Duration of opening and renewing calls.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)}),
		opened:   prometheus.NewCounter(prometheus.CounterOpts{Name: "worker_window_openings_total", Help: "How often the trust window opened."}),
		closed:   prometheus.NewCounter(prometheus.CounterOpts{Name: "worker_window_closings_total", Help: "How often the trust window closed because no renewal succeeded in time."}),
		died:     prometheus.NewCounter(prometheus.CounterOpts{Name: "worker_sessions_died_total", Help: "Sessions that were ended by others."}),
	}
	reg.MustRegister(m.renewals, m.latency, m.opened, m.closed, m.died)
	return m
}

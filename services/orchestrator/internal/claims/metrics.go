package claims

import (
	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

type metrics struct {
	granted, stale, dead prometheus.Counter
	failed               prometheus.Counter
	batch                prometheus.Histogram
	seconds              prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_claims_total", Help: "Claims decided, by answer."}, []string{"answer"})
	m := &metrics{
		granted: answers.WithLabelValues(string(protocol.Granted)),
		stale:   answers.WithLabelValues(string(protocol.Stale)),
		dead:    answers.WithLabelValues(string(protocol.SessionDead)),
		failed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_claims_batches_failed_total", Help: "Batches of claims that got no answer; their workers ask again."}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_claims_batch_size",
			Help: "Claims in one transaction.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_claims_seconds",
			Help: "Transaction of a batch of claims.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13)}),
	}
	reg.MustRegister(answers, m.failed, m.batch, m.seconds)
	return m
}

func (m *metrics) count(answers []protocol.Answer) {
	var granted, stale, dead int
	for _, a := range answers {
		switch a {
		case protocol.Granted:
			granted++
		case protocol.Stale:
			stale++
		case protocol.SessionDead:
			dead++
		}
	}
	m.granted.Add(float64(granted))
	m.stale.Add(float64(stale))
	m.dead.Add(float64(dead))
}

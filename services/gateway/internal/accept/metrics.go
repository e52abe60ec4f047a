package accept

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

// Metrics of accepting and handing out.
type Metrics struct {
	Accepted prometheus.Counter
	commits  *prometheus.HistogramVec
	rows     prometheus.Histogram
	unknown  prometheus.Counter
	publish  *prometheus.CounterVec
	marked   prometheus.Counter
	dropped  prometheus.Counter
}

// NewMetrics registers them; r may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Accepted: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_gateway_accepted_total", Help: "Executions that were committed here."}),
		commits:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "flow_gateway_commit_seconds", Help: "Group commits of executions, by outcome.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"outcome"}),
		rows:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_gateway_commit_rows", Help: "Executions in one group commit.", Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		unknown:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_gateway_commit_unknown_total", Help: "Group commits of which nothing could be found out in time."}),
		publish:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_gateway_publish_total", Help: "Tasks by what became of them: confirmed, unroutable, refused, unknown, busy."}, []string{"outcome"}),
		marked:   prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_gateway_marked_total", Help: "Confirmed tasks that were marked (or found to have moved on)."}),
		dropped:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_gateway_handout_left_total", Help: "Executions whose hand-out was left to the reconciler."}),
	}
	if r != nil {
		r.MustRegister(m.Accepted, m.commits, m.rows, m.unknown, m.publish, m.marked, m.dropped)
	}
	return m
}

func (m *Metrics) commit(rows int, took time.Duration, err error) {
	outcome := "committed"
	switch {
	case errors.Is(err, protocol.ErrUnknown):
		outcome = "unknown"
	case err != nil:
		outcome = "failed"
	}
	m.commits.WithLabelValues(outcome).Observe(took.Seconds())
	m.rows.Observe(float64(rows))
}

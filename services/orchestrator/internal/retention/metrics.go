package retention

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	ahead, oldest   prometheus.Gauge
	dropped, locked prometheus.Counter
	failed          prometheus.Counter
	deleted         *prometheus.CounterVec
	seconds         prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		ahead:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_partitions_days_ahead", Help: "Days after today that have partitions, as the leader saw them last: 0 means that executions are refused from midnight UTC on."}),
		oldest:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_partitions_oldest_days", Help: "Age in days of the oldest partition, as the leader saw it last."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_retention_days_dropped_total", Help: "Days whose partitions were dropped."}),
		locked:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_retention_locked_total", Help: "Attempts to drop a day that gave up because somebody held a lock: a few are normal, a row without an end is a forgotten transaction."}),
		failed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_retention_failed_total", Help: "Passes that ended with an error; the next one goes on."}),
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_retention_deleted_total", Help: "Rows deleted in batches, beside the days that were dropped whole. Of executions: without what belongs to them."}, []string{"table"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_retention_pass_seconds", Help: "A pass over everything that has a bound, pauses included.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 13)}),
	}
	reg.MustRegister(m.ahead, m.oldest, m.dropped, m.locked, m.failed, m.deleted, m.seconds)
	return m
}

package store

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	retries *prometheus.CounterVec
	unknown prometheus.Counter
	resets  prometheus.Counter
	txns    *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_store_retries_total", Help: "Transactions and reads that were run again (deadlock, lock timeout, stale plan, dead connection)."}, []string{"operation"}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_store_unknown_commits_total", Help: "Commits whose answer was lost."}),
		resets:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_store_pool_resets_total", Help: "Times that all connections were dropped since the server was not the primary any more."}),
		txns:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "flow_store_transaction_seconds", Help: "Transactions of the protocol, commit included.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"name"}),
	}
	if r != nil {
		r.MustRegister(m.retries, m.unknown, m.resets, m.txns)
	}
	return m
}

// watch adds what the pools say of themselves.
func (m *metrics) watch(r prometheus.Registerer, db *DB) {
	if r == nil {
		return
	}
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("flow_store_connections", "Connections to the primary.", func() float64 { return float64(db.primary.Stat().TotalConns()) })
	gauge("flow_store_connections_in_use", "Connections to the primary that are in use.", func() float64 { return float64(db.primary.Stat().AcquiredConns()) })
	gauge("flow_store_connections_max", "How many connections to the primary there may be.", func() float64 { return float64(db.primary.Stat().MaxConns()) })
}

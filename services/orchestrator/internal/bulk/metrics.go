package bulk

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	open  prometheus.Gauge
	items *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		open:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_bulk_open", Help: "Bulk jobs that are not finished."}),
		items: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_bulk_items_total", Help: "Executions that bulk jobs were done with, by what became of them."}, []string{"action", "outcome"}),
	}
	r.MustRegister(m.open, m.items)
	return m
}

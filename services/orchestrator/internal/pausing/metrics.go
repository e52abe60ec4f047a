package pausing

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	paused, released prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_orchestrator_paused_executions_total", Help: "Executions that the leader paused with their flow, and let go when nothing paused them any more."}, []string{"action"})
	r.MustRegister(vec)
	return &metrics{paused: vec.WithLabelValues("paused"), released: vec.WithLabelValues("released")}
}

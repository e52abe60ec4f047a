package steer

import (
	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/orchestrator/internal/autoscale"
)

type metrics struct {
	ready, workers, rates *prometheus.GaugeVec
	scaled                *prometheus.CounterVec
	tuned                 prometheus.Counter
	failed                *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		ready:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flow_queue_ready", Help: "Messages that wait in a queue, as the leader saw it last."}, []string{"queue"}),
		workers: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flow_scaling_workers", Help: "Workers of a pool, by what: desired (by Nomad), wanted (by the leader), placed, reporting."}, []string{"pool", "what"}),
		rates:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flow_scaling_observed", Help: "What the leader sees of a pool: backlog, running, slots, arrival (a second), completion (a second), utilisation (0 to 1)."}, []string{"pool", "what"}),
		scaled:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_scaling_changes_total", Help: "Changes of the number of workers that Nomad took."}, []string{"pool", "code"}),
		tuned:   prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_balance_tuned_total", Help: "Workers whose slots were changed."}),
		failed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_steer_failed_total", Help: "Steps of the leader's steering that failed and are tried again."}, []string{"step"}),
	}
	reg.MustRegister(m.ready, m.workers, m.rates, m.scaled, m.tuned, m.failed)
	return m
}

func (m *metrics) watch(pool string, o autoscale.Observation, d autoscale.Decision) {
	for what, n := range map[string]int{"desired": o.Desired, "wanted": d.Want, "placed": o.Placed, "reporting": o.Workers} {
		m.workers.WithLabelValues(pool, what).Set(float64(n))
	}
	for what, v := range map[string]float64{"backlog": float64(o.Backlog()), "running": float64(o.Running), "slots": float64(o.Slots), "arrival": o.Arrival, "completion": o.Completion, "utilisation": o.Utilisation()} {
		m.rates.WithLabelValues(pool, what).Set(v)
	}
}

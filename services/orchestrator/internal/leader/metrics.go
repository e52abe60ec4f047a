package leader

import "github.com/prometheus/client_golang/prometheus"

const (
	stateStandby   = 0
	stateCandidate = 1
	stateLeading   = 2
)

type metrics struct {
	state, term, consul  prometheus.Gauge
	elected, renewFailed prometheus.Counter
	ended                *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		state:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_leader_state", Help: "0 standby, 1 candidate, 2 leading."}),
		term:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_leader_term", Help: "Number of the last term that this orchestrator led."}),
		consul:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_leader_consul_reachable", Help: "1 when the last call to Consul went well."}),
		elected:     prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_leader_elected_total", Help: "Terms that this orchestrator began."}),
		renewFailed: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_leader_renewals_failed_total", Help: "Renewals of the leader's session that failed; they are tried again until the trust window closes."}),
		ended:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_leader_terms_ended_total", Help: "Terms that ended, by reason: stop, window, lost, work."}, []string{"reason"}),
	}
	for _, r := range []string{"stop", "window", "lost", "work"} {
		m.ended.WithLabelValues(r)
	}
	reg.MustRegister(m.state, m.term, m.consul, m.elected, m.renewFailed, m.ended)
	return m
}

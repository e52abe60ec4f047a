package admit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	released, caught prometheus.Counter
	failed           *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		released: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_limits_released_total", Help: "Executions whose rate or debounce was over and that went on."}),
		caught:   prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_limits_caught_total", Help: "Executions that waited at a limit though there was room, and that the leader let in: whoever made the room died, or could not. Also those of a flow that was resumed."}),
		failed:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_limits_failed_total", Help: "Steps of flow control that failed, by step."}, []string{"step"}),
	}
	if r != nil {
		r.MustRegister(m.released, m.caught, m.failed)
	}
	return m
}

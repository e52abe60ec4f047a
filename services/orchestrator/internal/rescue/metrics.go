package rescue

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	alive, deadOwners          prometheus.Gauge
	ended, reconciled, overdue prometheus.Counter
	woken, letters, mail       prometheus.Counter
	lost                       prometheus.Counter
	failed                     *prometheus.CounterVec
	lateness                   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		alive:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_sessions_alive", Help: "Sessions alive, as the leader saw them last."}),
		deadOwners: prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_recover_dead_owners", Help: "Dead sessions that still own executions, as the leader saw them last: above 0 for long means that reports aren't collected."}),
		ended:      prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_sessions_judged_dead_total", Help: "Sessions ended by the leader, for want of a renewal for a whole lease."}),
		reconciled: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_reconciled_total", Help: "Executions handed out by the leader because whoever queued them had not. A net: alarm when it grows without a failure beside it."}),
		overdue:    prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_deadlines_passed_total", Help: "Executions ended or flagged because they were past their deadline."}),
		woken:      prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_timers_woken_total", Help: "Executions woken because a wait was due."}),
		letters:    prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_dead_letters_moved_total", Help: "Messages moved from the broker's dead letters into their table."}),
		mail:       prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_letters_swept_total", Help: "Executions whose pending letters (a child's end, the end of a caller) the leader acted on because whoever committed them had not. A net: alarm when it grows without a failure beside it."}),
		lost:       prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_remote_tasks_lost_total", Help: "Remote tasks ended because one worker after the other took them and gave no sign of life."}),
		failed:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_leader_steps_failed_total", Help: "Steps of the leader's loops that failed and are tried again."}, []string{"step"}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_timers_late_seconds",
			Help: "From the moment a wait was due to its execution being handed out again, for waits that were read ahead.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
	}
	reg.MustRegister(m.alive, m.deadOwners, m.ended, m.reconciled, m.overdue, m.woken, m.letters, m.mail, m.lost, m.failed, m.lateness)
	return m
}

package collect

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

type metrics struct {
	entries      *prometheus.CounterVec
	kinds        map[protocol.EntryKind]prometheus.Counter
	changed      prometheus.Counter
	parked       prometheus.Counter
	behind       prometheus.Counter
	unparseable  prometheus.Counter
	unknown      prometheus.Counter
	reopened     *prometheus.CounterVec
	batch        prometheus.Histogram
	seconds      prometheus.Histogram
	waited       prometheus.Histogram
	recoverAfter prometheus.Histogram
	recovered    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		entries:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_reports_entries_total", Help: "Entries of reports that were committed or found to be old news, by kind."}, []string{"kind"}),
		changed:     prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_reports_executions_changed_total", Help: "Executions changed by batches of reports; entries beyond that are old news, or several of one execution."}),
		parked:      prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_reports_parked_total", Help: "Entries that went to the dead letters: unknown execution, refused value, or a confirmed report before them was lost. Alarm on any."}),
		behind:      prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_reports_behind_total", Help: "Executions whose reports came with a gap before them; the queue was taken again."}),
		unparseable: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_reports_unparseable_total", Help: "Messages or entries that can't be read, in the dead letters. Alarm on any."}),
		unknown:     prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_reports_commit_unknown_total", Help: "Batches whose COMMIT had no answer; they come again and are old news if it went well."}),
		reopened: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_reports_channel_closed_total",
			Help: "Channels closed so that the queue is delivered again, in order, by reason. newer-schema: finish the release."}, []string{"reason"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_reports_batch_size",
			Help: "Entries in one transaction.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 350, 512, 1024}}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_reports_apply_seconds",
			Help: "Transaction of a batch.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_reports_batch_seconds",
			Help: "From a batch's first message to its commit.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}),
		recoverAfter: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flow_recover_seconds",
			Help: "From the end of a session to its executions being queued again, on this shard.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14)}),
		recovered: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_recovers_total", Help: "Recover entries worked off; most find nothing."}),
	}
	m.kinds = map[protocol.EntryKind]prometheus.Counter{}
	for _, kind := range []protocol.EntryKind{protocol.EntryStep, protocol.EntrySuspend, protocol.EntryYield, protocol.EntryFinal} {
		m.kinds[kind] = m.entries.WithLabelValues(string(kind))
	}
	reg.MustRegister(m.entries, m.changed, m.parked, m.behind, m.unparseable, m.unknown, m.reopened, m.batch, m.seconds, m.waited, m.recoverAfter, m.recovered)
	return m
}

// applied counts a batch after its commit.
func (m *metrics) applied(b *batch, out protocol.Outcome, took time.Duration) {
	now := time.Now()
	var counts [4]int
	for i := range b.entries {
		switch e := &b.entries[i]; e.Kind {
		case protocol.EntryStep:
			counts[0]++
		case protocol.EntrySuspend:
			counts[1]++
		case protocol.EntryYield:
			counts[2]++
		case protocol.EntryFinal:
			counts[3]++
		case protocol.EntryRecover:
			m.recovered.Inc()
			if !e.Started.IsZero() && len(out.HandOut) > 0 {
				m.recoverAfter.Observe(max(0, now.Sub(e.Started).Seconds()))
			}
		}
	}
	for i, kind := range []protocol.EntryKind{protocol.EntryStep, protocol.EntrySuspend, protocol.EntryYield, protocol.EntryFinal} {
		m.kinds[kind].Add(float64(counts[i]))
	}
	m.changed.Add(float64(len(out.News)))
	m.parked.Add(float64(out.Parked))
	m.batch.Observe(float64(len(b.entries)))
	m.seconds.Observe(took.Seconds())
	m.waited.Observe(now.Sub(b.began).Seconds())
}

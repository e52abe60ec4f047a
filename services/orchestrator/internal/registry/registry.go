// Package registry knows how the workers are: it hears their health reports. Every orchestrator listens, so that whoever leads next knows at once.
//
// The load of a worker lives here, in memory, and nowhere else; what doesn't change stands in its session's row. Nothing about executions is decided by
// it: a worker that falls silent keeps what it owns until its session ends.
package registry

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
)

// maxWorkers bounds what is remembered.
const maxWorkers = 10_000

// Worker is the last health report of one.
type Worker struct {
	protocol.Heartbeat
	Heard time.Time // on our clock
}

// Registry is what was heard. Safe for concurrent use.
type Registry struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	workers map[string]Worker
	heard   prometheus.Counter
	broken  prometheus.Counter
}

// New returns an empty registry.
func New(log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Registry {
	r := &Registry{log: log, now: now, workers: map[string]Worker{},
		heard:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_workers_reports_total", Help: "Health reports of workers that were heard."}),
		broken: prometheus.NewCounter(prometheus.CounterOpts{Name: "flow_workers_reports_broken_total", Help: "Health reports of workers that could not be read."}),
	}
	reg.MustRegister(r.heard, r.broken, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "flow_workers_known", Help: "Workers that were heard within WORKER_TIMEOUT."}, func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return float64(len(r.workers))
	}))
	return r
}

// Run hears until the consumer ends.
func (r *Registry) Run(consumer *broker.Consumer) {
	for d := range consumer.Deliveries() {
		var h protocol.Heartbeat
		if err := json.Unmarshal(d.Body, &h); err != nil || h.Worker == "" || h.V > protocol.SchemaVersion {
			r.broken.Inc()
		} else {
			r.Hear(h)
		}
		d.Ack()
	}
}

// Hear takes a health report. An older one than the last of the same session changes nothing.
func (r *Registry) Hear(h protocol.Heartbeat) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard.Inc()
	before, known := r.workers[h.Worker]
	if known && before.Session == h.Session && h.At.Before(before.At) || !known && len(r.workers) >= maxWorkers {
		return
	}
	r.workers[h.Worker] = Worker{Heartbeat: h, Heard: now}
}

// usual is how often workers report that don't say so.
const usual = 15 * time.Second

// Fresh tells whether the worker is heard as often as it should be.
func (w *Worker) Fresh(now time.Time) bool {
	every := time.Duration(w.EveryMS) * time.Millisecond
	if every <= 0 {
		every = usual
	}
	return now.Sub(w.Heard) <= 2*every+5*time.Second
}

// Workers lists what was heard within the timeout, by name, and forgets the rest.
func (r *Registry) Workers(timeout time.Duration) []Worker {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Worker, 0, len(r.workers))
	for name, w := range r.workers {
		if now.Sub(w.Heard) > timeout {
			delete(r.workers, name)
			r.log.Info("a worker has not been heard for long: it leaves the list", "worker", name, "heard", w.Heard, "timeout", timeout.String())
			continue
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b Worker) int { return strings.Compare(a.Worker, b.Worker) })
	return out
}

// Listen consumes health reports on a connection until ctx ends. process names the queue, which is exclusive and dies with the connection: what is sent
// meanwhile is lost, and sent again in time.
func (r *Registry) Listen(ctx context.Context, conn *broker.Conn, process string) {
	consumer := conn.Consume(broker.ConsumeOptions{Queue: broker.HeartbeatQueue(process), Prefetch: 500, Bindings: []string{broker.HeartbeatBinding}})
	defer context.AfterFunc(ctx, func() {
		stop, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := consumer.Stop(stop); err != nil {
			r.log.Debug("stopping the consumer of health reports", "error", err)
		}
	})()
	r.Run(consumer)
}

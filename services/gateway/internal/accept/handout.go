package accept

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Messages is what publishes; *broker.Publisher does.
type Messages interface {
	Publish(m broker.Message, done func(broker.Outcome)) error
	Ready() error
}

// Queue is what HandOut needs of the database.
type Queue interface {
	protocol.Store
	UnhandedCount(ctx context.Context) (int, error)
}

// HandOutOptions of NewHandOut. Zero numbers mean the defaults.
type HandOutOptions struct {
	Queue    Queue
	Messages Messages
	Log      *slog.Logger
	Metrics  *Metrics

	MarkEvery  time.Duration // how often confirmed tasks are marked; default 700 ms
	RetryEvery time.Duration // how often tasks that were not confirmed are tried again; default 1 s
	MostBytes  int           // inputs that may wait to be published; default 64 MiB
	MostRetry  int           // ids that are kept for another try; default 50,000
	Limit      int           // rows in the database that nobody has handed out, from which on Full says so; default 50,000; the count ends at 100,000
}

// HandOut publishes the tasks of committed executions and marks what the broker has. It never holds anybody up: what it can't do is left to the
// reconciler, which finds rows that are queued for two seconds and not marked.
type HandOut struct {
	o    HandOutOptions
	wake chan struct{}

	mu     sync.Mutex
	fresh  []store.NewExecution
	bytes  int
	retry  []protocol.ID
	marks  []protocol.Handed
	closed bool

	flight  atomic.Int64
	full    atomic.Bool
	count   atomic.Int64
	stop    context.CancelFunc
	running sync.WaitGroup
}

// NewHandOut makes one that works until Stop.
func NewHandOut(o HandOutOptions) *HandOut {
	o.MarkEvery = cmp.Or(o.MarkEvery, 700*time.Millisecond)
	o.RetryEvery = cmp.Or(o.RetryEvery, time.Second)
	o.MostBytes = cmp.Or(o.MostBytes, 64<<20)
	o.MostRetry = cmp.Or(o.MostRetry, 50_000)
	o.Limit = cmp.Or(o.Limit, 50_000)
	ctx, cancel := context.WithCancel(context.Background())
	h := &HandOut{o: o, wake: make(chan struct{}, 1), stop: cancel}
	h.running.Go(func() { h.publishAll(ctx) })
	h.running.Go(func() { every(ctx, o.MarkEvery, h.mark) })
	h.running.Go(func() { every(ctx, o.RetryEvery, h.again) })
	return h
}

// every calls f again and again until ctx ends.
func every(ctx context.Context, d time.Duration, f func(context.Context)) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f(ctx)
		}
	}
}

// Take takes rows that were just committed. It never waits.
func (h *HandOut) Take(rows []store.NewExecution) {
	size := 0
	for i := range rows {
		size += len(rows[i].Input) + 200
	}
	h.mu.Lock()
	if h.closed || h.bytes+size > h.o.MostBytes {
		h.mu.Unlock()
		h.o.Metrics.dropped.Add(float64(len(rows)))
		return
	}
	h.fresh = append(h.fresh, rows...)
	h.bytes += size
	h.mu.Unlock()
	h.signal()
}

func (h *HandOut) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Full tells whether so much waits to be handed out that no more should be accepted.
func (h *HandOut) Full() bool { return h.full.Load() }

// Unhanded is how many rows of the database were last seen to wait for their hand-out; it is only counted while the broker has trouble.
func (h *HandOut) Unhanded() int { return int(h.count.Load()) }

func (h *HandOut) publishAll(ctx context.Context) {
	for {
		select {
		case <-h.wake:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		rows := h.fresh
		h.fresh, h.bytes = nil, 0
		h.mu.Unlock()
		for i := range rows {
			h.publish(&rows[i])
		}
	}
}

// publish publishes the task of a row as it was committed: attempt 1, no steps.
func (h *HandOut) publish(r *store.NewExecution) {
	if r.Hold != "" {
		return
	}
	if len(r.Input) > protocol.MaxInline || h.o.Messages.Ready() != nil {
		h.keep(r.ID) // large inputs go by reference: the task is made from the row
		return
	}
	t := protocol.Task{
		V: protocol.SchemaVersion, ID: r.ID, Attempt: 1, Shard: r.Shard, Project: r.Project, Flow: r.Flow, Version: r.Version, Pool: r.Pool, Priority: r.Priority,
		Trigger: r.Trigger, Labels: r.Labels, CreatedAt: r.CreatedAt, Deadline: r.Deadline, Input: r.Input,
	}
	h.send(&t, func(o broker.Outcome) { h.outcome(t.ID, t.Attempt, o) })
}

// send publishes a task. done is called once, when it is known what became of it.
func (h *HandOut) send(t *protocol.Task, done func(broker.Outcome)) {
	body, err := json.Marshal(t)
	if err != nil {
		h.o.Log.Error("a task can't be written", "execution", t.ID.String(), "error", err)
		done(broker.Refused)
		return
	}
	m := broker.Message{Key: broker.TaskKey(cmp.Or(t.Pool, "default"), cmp.Or(t.Priority, "normal")), ID: t.ID.String() + ".1", Type: "task", Body: body}
	h.flight.Add(1)
	err = h.o.Messages.Publish(m, func(o broker.Outcome) {
		h.flight.Add(-1)
		h.o.Metrics.publish.WithLabelValues(o.String()).Inc()
		done(o)
	})
	if err != nil {
		h.flight.Add(-1)
		h.o.Metrics.publish.WithLabelValues("busy").Inc()
		done(broker.Unknown)
	}
}

// outcome is called on the publisher's goroutine.
func (h *HandOut) outcome(id protocol.ID, attempt int, o broker.Outcome) {
	if o == broker.Unroutable {
		h.o.Log.Error("no queue takes this task: no worker of its pool has ever come up, or its queue was deleted; the task is tried again", "execution", id.String())
	}
	if o != broker.Confirmed {
		h.keep(id)
		return
	}
	h.mu.Lock()
	h.marks = append(h.marks, protocol.Handed{ID: id, Attempt: attempt})
	h.mu.Unlock()
}

// keep keeps an id for another try.
func (h *HandOut) keep(id protocol.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.retry) >= h.o.MostRetry {
		h.o.Metrics.dropped.Inc()
		return
	}
	h.retry = append(h.retry, id)
}

// markBatch bounds the rows of one statement.
const markBatch = 5000

// mark marks what was confirmed since the last time. It is late on purpose: most have moved on by then and cost no write.
func (h *HandOut) mark(ctx context.Context) {
	h.mu.Lock()
	marks := h.marks
	h.marks = nil
	h.mu.Unlock()
	for len(marks) > 0 {
		n := min(len(marks), markBatch)
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := h.o.Queue.MarkHanded(bounded, marks[:n])
		cancel()
		if err != nil { // the reconciler publishes them once more, which does no harm
			h.o.Log.Warn("tasks that the broker has could not be marked", "executions", len(marks), "error", err)
			return
		}
		h.o.Metrics.marked.Add(float64(n))
		marks = marks[n:]
	}
}

// again hands out what was not confirmed, when the broker is there; and looks how much the database holds while it isn't.
func (h *HandOut) again(ctx context.Context) {
	h.mu.Lock()
	n := min(len(h.retry), 1000)
	var ids []protocol.ID
	if h.o.Messages.Ready() == nil {
		ids, h.retry = h.retry[:n:n], h.retry[n:]
	}
	trouble := n > 0 && ids == nil || len(h.retry) > 0
	h.mu.Unlock()
	if len(ids) > 0 {
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := protocol.HandOut(bounded, h.o.Queue, tasks{h}, ids)
		cancel()
		if err != nil {
			h.o.Log.Warn("tasks could not be handed out: the leader does it", "executions", len(ids), "error", err)
		}
	}
	if trouble || h.full.Load() || h.count.Load() > 0 || h.o.Messages.Ready() != nil {
		h.look(ctx)
	}
}

func (h *HandOut) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	n, err := h.o.Queue.UnhandedCount(bounded)
	if err != nil {
		h.o.Log.Warn("rows that wait for their hand-out can't be counted", "error", err)
		return
	}
	h.count.Store(int64(n))
	if full := n >= h.o.Limit; h.full.Swap(full) != full {
		h.o.Log.Warn("hand-out", "full", full, "unhanded", n, "limit", h.o.Limit)
	}
}

// tasks is HandOut as protocol's publisher.
type tasks struct{ h *HandOut }

// PublishTasks implements protocol.TaskPublisher.
func (p tasks) PublishTasks(ctx context.Context, list []protocol.Task) []bool {
	var mu sync.Mutex
	confirmed := make([]bool, len(list))
	var left sync.WaitGroup
	left.Add(len(list))
	for i := range list {
		p.h.send(&list[i], func(o broker.Outcome) {
			mu.Lock()
			confirmed[i] = o == broker.Confirmed
			mu.Unlock()
			left.Done()
		})
	}
	all := make(chan struct{})
	go func() { left.Wait(); close(all) }()
	select {
	case <-all:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	return append([]bool(nil), confirmed...)
}

// Flush publishes what waits, gives confirms until ctx ends to come, and marks them. What is left is the reconciler's. Take drops from now on.
func (h *HandOut) Flush(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		idle := len(h.fresh) == 0 && h.flight.Load() == 0
		h.mu.Unlock()
		if idle || h.o.Messages.Ready() != nil {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	h.mark(ctx)
}

// Stop flushes and ends.
func (h *HandOut) Stop(ctx context.Context) error {
	h.Flush(ctx)
	h.stop()
	h.running.Wait()
	return nil
}

package accept

import (
	"cmp"
	"context"
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
	kick chan struct{} // ids wait that should not wait for the next look

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
	h := &HandOut{o: o, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1), stop: cancel}
	h.running.Go(func() { h.publishAll(ctx) })
	h.running.Go(func() { every(ctx, o.MarkEvery, nil, h.mark) })
	h.running.Go(func() { every(ctx, o.RetryEvery, h.kick, h.again) })
	return h
}

// every calls f again and again, and when it is kicked, until ctx ends.
func every(ctx context.Context, d time.Duration, kick <-chan struct{}, f func(context.Context)) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f(ctx)
		case <-kick:
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
		h.publish(rows)
	}
}

// publish publishes the tasks of rows as they were committed: attempt 1, no steps.
func (h *HandOut) publish(rows []store.NewExecution) {
	away := h.o.Messages.Ready() != nil
	tasks := make([]protocol.Task, 0, len(rows))
	for i := range rows {
		switch r := &rows[i]; {
		case !r.Ready():
		case len(r.Input) > protocol.MaxInline || away:
			h.keep(r.ID) // large inputs go by reference: the task is made from the row
		default:
			tasks = append(tasks, protocol.Task{
				V: protocol.SchemaVersion, ID: r.ID, Attempt: 1, Shard: r.Shard, Project: r.Project, Flow: r.Flow, Version: r.Version, Pool: r.Pool, Priority: r.Priority,
				Trigger: r.Trigger, Labels: r.Labels, CreatedAt: r.CreatedAt, Deadline: r.Deadline, Input: r.Input,
			})
		}
	}
	h.send(tasks, func(carried []int, o broker.Outcome) { h.outcome(tasks, carried, o) })
}

// send publishes tasks. done is called once for each, together with those that shared its message, when it is known what became of it.
func (h *HandOut) send(tasks []protocol.Task, done func(carried []int, o broker.Outcome)) {
	unfit := func(i int, err error) {
		h.o.Log.Error("a task can't be written", "execution", tasks[i].ID.String(), "error", err)
		done([]int{i}, broker.Refused)
	}
	for _, m := range broker.TaskMessages(tasks, unfit) {
		n := len(m.Carries)
		h.flight.Add(int64(n))
		err := h.o.Messages.Publish(m.Message, func(o broker.Outcome) {
			h.flight.Add(int64(-n))
			h.o.Metrics.publish.WithLabelValues(o.String()).Add(float64(n))
			done(m.Carries, o)
		})
		if err != nil {
			h.flight.Add(int64(-n))
			h.o.Metrics.publish.WithLabelValues("busy").Add(float64(n))
			done(m.Carries, broker.Unknown)
		}
	}
}

// outcome is called on the publisher's goroutine.
func (h *HandOut) outcome(tasks []protocol.Task, carried []int, o broker.Outcome) {
	if o == broker.Unroutable {
		h.o.Log.Error("no queue takes these tasks: no worker of their pool has ever come up, or its queue was deleted; they are tried again", "execution", tasks[carried[0]].ID.String(), "tasks", len(carried))
	}
	if o != broker.Confirmed {
		for _, i := range carried {
			h.keep(tasks[i].ID)
		}
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range carried {
		h.marks = append(h.marks, protocol.Handed{ID: tasks[i].ID, Attempt: tasks[i].Attempt})
	}
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

// Again hands out executions that somebody has just committed as queued, as their rows are then. It never waits.
func (h *HandOut) Again(ids []protocol.ID) {
	if len(ids) == 0 {
		return
	}
	for _, id := range ids {
		h.keep(id)
	}
	select {
	case h.kick <- struct{}{}:
	default:
	}
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
	p.h.send(list, func(carried []int, o broker.Outcome) {
		mu.Lock()
		for _, i := range carried {
			confirmed[i] = o == broker.Confirmed
		}
		mu.Unlock()
		left.Add(-len(carried))
	})
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

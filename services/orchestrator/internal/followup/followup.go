// Package followup does what a committed transaction leaves to be done, beside the path of whoever committed it: hand out what is queued now,
// tell the live view, tell owners of cancels, act on the letters that ended executions have left.
//
// All of it is bounded and may be lost, since something slower does the same: the reconciler publishes what was not handed out, a client of
// the live view reads the row, a renewal's answer carries the cancels, the leader sweeps letters. So nothing here ever holds a collector up: a Redis that hangs
// costs events, which are counted, and nothing else.
package followup

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

const (
	maxHandOut = 50_000 // ids that wait to be handed out
	maxNews    = 20_000 // events that wait for Redis
	maxTold    = 5_000
	maxMail    = 20_000 // executions with letters that somebody has to act on
	batchSize  = 500
)

// Options of New. All are required.
type Options struct {
	Store     protocol.Store
	Publisher protocol.TaskPublisher
	// Events tells the live view.
	Events func(ctx context.Context, news []protocol.News) error
	// Control tells the owners of executions.
	Control    func(ctx context.Context, orders []protocol.CancelOrder) error
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Followup takes outcomes and works them off. Safe for concurrent use.
type Followup struct {
	o       Options
	metrics *metrics
	handOut *outbox[protocol.ID]
	news    *outbox[protocol.News]
	told    *outbox[protocol.CancelOrder]
	mail    *outbox[protocol.ID]
	freed   *outbox[string]
	stop    context.CancelFunc
	hush    context.CancelFunc // of what is only nice to have
	running sync.WaitGroup
}

// hushAfter is how long a stop waits for the live view: longer, it would only wait for a Redis that is away.
const hushAfter = 200 * time.Millisecond

// New returns a Followup that has begun to work; Stop ends it.
func New(o Options) *Followup {
	ctx, cancel := context.WithCancel(context.Background())
	nice, hush := context.WithCancel(ctx)
	f := &Followup{
		o: o, metrics: newMetrics(o.Registerer), stop: cancel, hush: hush,
		handOut: newOutbox[protocol.ID](maxHandOut),
		news:    newOutbox[protocol.News](maxNews),
		told:    newOutbox[protocol.CancelOrder](maxTold),
		mail:    newOutbox[protocol.ID](maxMail),
		freed:   newOutbox[string](maxHandOut),
	}
	f.running.Go(func() { drain(ctx, f.handOut, 10*time.Second, f.publish) })
	f.running.Go(func() { drain(ctx, f.freed, 10*time.Second, f.admit) })
	f.running.Go(func() { drain(nice, f.news, 2*time.Second, f.tell) })
	f.running.Go(func() { drain(nice, f.told, 2*time.Second, f.control) })
	f.running.Go(func() {
		defer f.handOut.close() // what letters wake is handed out too
		drain(ctx, f.mail, 10*time.Second, f.post)
	})
	return f
}

// Take takes an outcome. It never waits.
func (f *Followup) Take(out protocol.Outcome) {
	f.metrics.dropped("tasks", f.handOut.put(out.HandOut))
	f.metrics.dropped("keys", f.freed.put(out.Freed))
	f.metrics.dropped("events", f.news.put(out.News))
	f.metrics.dropped("cancels", f.told.put(out.Told))
	f.metrics.dropped("mail", f.mail.put(out.Mail))
}

// Stop works off what waits, for as long as ctx allows, and ends.
func (f *Followup) Stop(ctx context.Context) error {
	f.mail.close()
	f.news.close()
	f.told.close()
	f.freed.close()
	defer f.stop()
	quiet := time.AfterFunc(hushAfter, f.hush)
	defer quiet.Stop()
	ended := make(chan struct{})
	go func() { f.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		f.stop()
		<-ended
	}
	return nil
}

func (f *Followup) publish(ctx context.Context, ids []protocol.ID) {
	begin := time.Now()
	n, err := protocol.HandOut(ctx, f.o.Store, f.o.Publisher, ids)
	f.metrics.handed.Add(float64(n))
	f.metrics.handOutSeconds.Observe(time.Since(begin).Seconds())
	if err != nil {
		f.metrics.failed.WithLabelValues("tasks").Add(float64(len(ids)))
		f.o.Log.Warn("tasks could not be handed out: the leader does it in two seconds", "executions", len(ids), "error", err)
	}
}

// post acts on the letters that ends have left: it wakes callers, and ends those who were called.
func (f *Followup) post(ctx context.Context, ids []protocol.ID) {
	var out protocol.Outcome
	err := f.o.Store.Txn(ctx, "post", func(tx protocol.Tx) (err error) {
		out, err = protocol.Post(ctx, tx, ids)
		return err
	})
	if err != nil {
		f.metrics.failed.WithLabelValues("mail").Add(float64(len(ids)))
		f.o.Log.Warn("letters could not be acted on: the leader does it in a second", "executions", len(ids), "error", err)
		return
	}
	f.Take(out)
}

// admit lets others in where an end has made room.
func (f *Followup) admit(ctx context.Context, keys []string) {
	a := protocol.Admitter{Store: f.o.Store, Publisher: f.o.Publisher}
	if _, err := a.Admit(ctx, keys); err != nil {
		f.metrics.failed.WithLabelValues("keys").Add(float64(len(keys)))
		f.o.Log.Warn("executions that wait for a limit could not be let in: the leader does it in two seconds", "keys", len(keys), "error", err)
	}
}

func (f *Followup) tell(ctx context.Context, news []protocol.News) {
	if err := f.o.Events(ctx, news); err != nil {
		f.metrics.dropped("events", len(news))
		f.o.Log.Debug("live events dropped", "events", len(news), "error", err)
	}
}

func (f *Followup) control(ctx context.Context, orders []protocol.CancelOrder) {
	if err := f.o.Control(ctx, orders); err != nil {
		f.metrics.dropped("cancels", len(orders))
		f.o.Log.Debug("cancels not told: the next renewals carry them", "orders", len(orders), "error", err)
	}
}

// drain gives what waits to do, in batches, until the outbox is closed and empty, or ctx ends.
func drain[T any](ctx context.Context, box *outbox[T], timeout time.Duration, do func(context.Context, []T)) {
	for {
		batch, ok := box.take(ctx, batchSize)
		if !ok {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, timeout)
		do(bounded, batch)
		cancel()
	}
}

// outbox is a bounded queue whose writers never wait.
type outbox[T any] struct {
	mu     sync.Mutex
	items  []T
	max    int
	closed bool
	wake   chan struct{} // holds one token when there may be something to take
}

func newOutbox[T any](most int) *outbox[T] {
	return &outbox[T]{max: most, wake: make(chan struct{}, 1)}
}

// put adds what has room, and tells how many had none.
func (b *outbox[T]) put(items []T) (dropped int) {
	if len(items) == 0 {
		return 0
	}
	b.mu.Lock()
	room := max(0, b.max-len(b.items))
	if b.closed {
		room = 0
	}
	if room < len(items) {
		dropped = len(items) - room
		items = items[:room]
	}
	b.items = append(b.items, items...)
	b.mu.Unlock()
	b.signal()
	return dropped
}

func (b *outbox[T]) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *outbox[T]) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.signal()
}

// take waits for something and returns at most n items. It returns false when the outbox is closed and empty, or ctx has ended.
func (b *outbox[T]) take(ctx context.Context, n int) ([]T, bool) {
	for {
		b.mu.Lock()
		if len(b.items) > 0 && ctx.Err() == nil {
			n = min(n, len(b.items))
			out := make([]T, n)
			copy(out, b.items)
			b.items = b.items[n:]
			if len(b.items) == 0 {
				b.items = nil
			}
			b.mu.Unlock()
			return out, true
		}
		closed := b.closed
		b.mu.Unlock()
		if closed || ctx.Err() != nil {
			return nil, false
		}
		select {
		case <-b.wake:
		case <-ctx.Done():
			return nil, false
		}
	}
}

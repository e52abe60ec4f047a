package accept

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Rows is where executions are inserted.
type Rows interface {
	InsertExecutions(ctx context.Context, rows []store.NewExecution) ([]store.Inserted, error)
	ExistingExecutions(ctx context.Context, ids []protocol.ID) (map[protocol.ID]bool, error)
}

// Errors of Submit.
var (
	ErrBusy    = errors.New("too many executions wait to be committed: PostgreSQL is slow or away")
	ErrStopped = errors.New("this gateway is stopping")
)

// Options of a Batcher. Zero numbers mean the defaults.
type Options struct {
	Rows Rows
	// Committed is told of the rows that were newly inserted, after COMMIT and before their callers. It must not block.
	Committed func(rows []store.NewExecution)
	Log       *slog.Logger
	Metrics   *Metrics

	Window     time.Duration // how long the first row of a batch waits for others when commits are under way; default 1 ms
	MaxRows    int           // a batch; default 500
	InFlight   int           // commits at once; default 2
	MaxWaiting int           // rows that may wait; default 20,000
	Patience   time.Duration // how long a group of rows is tried to be committed, from the first try; default 10 s
}

func (o *Options) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	number := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	set(&o.Window, time.Millisecond)
	set(&o.Patience, 10*time.Second)
	number(&o.MaxRows, 500)
	number(&o.InFlight, 2)
	number(&o.MaxWaiting, 20_000)
}

// Batcher commits the rows of many callers together. Safe for concurrent use.
type Batcher struct {
	o    Options
	wake chan struct{} // one token when something waits
	slot chan struct{} // one for each commit in flight

	mu      sync.Mutex
	waiting []*group
	rows    int
	stopped bool

	running sync.WaitGroup
}

// group is what one caller submitted: it stands or falls as one.
type group struct {
	rows   []store.NewExecution
	result []store.Inserted
	err    error
	done   chan struct{}
}

// NewBatcher makes one that works until Stop.
func NewBatcher(o Options) *Batcher {
	o.defaults()
	b := &Batcher{o: o, wake: make(chan struct{}, 1), slot: make(chan struct{}, o.InFlight)}
	b.running.Go(b.run)
	return b
}

// Submit commits the rows, all or none, and tells for each what became of it. It returns after COMMIT. It doesn't end with any context: rows that
// wait are committed, or refused after Patience. An error that is protocol.ErrUnknown means: perhaps.
func (b *Batcher) Submit(rows []store.NewExecution) ([]store.Inserted, error) {
	g := &group{rows: rows, done: make(chan struct{})}
	b.mu.Lock()
	switch {
	case b.stopped:
		b.mu.Unlock()
		return nil, ErrStopped
	case b.rows > 0 && b.rows+len(rows) > b.o.MaxWaiting:
		b.mu.Unlock()
		return nil, ErrBusy
	}
	b.waiting = append(b.waiting, g)
	b.rows += len(rows)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	<-g.done
	return g.result, g.err
}

// Waiting is how many rows wait for their commit to begin.
func (b *Batcher) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rows
}

// Stop commits what waits, and ends. Submit refuses from now on.
func (b *Batcher) Stop(ctx context.Context) error {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	done := make(chan struct{})
	go func() { b.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("commits are still under way: %w", ctx.Err())
	}
}

func (b *Batcher) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for range b.wake {
		for {
			busy := len(b.slot) > 0
			b.slot <- struct{}{} // while we wait here, more rows come
			if busy && b.room() {
				timer.Reset(b.o.Window)
				b.gather(timer.C)
			}
			batch := b.take()
			if batch == nil {
				<-b.slot
				break
			}
			b.running.Go(func() {
				b.commit(batch)
				<-b.slot
			})
		}
		b.mu.Lock()
		end := b.stopped && len(b.waiting) == 0
		b.mu.Unlock()
		if end {
			return
		}
	}
}

// gather waits until the window ends or a batch is full.
func (b *Batcher) gather(window <-chan time.Time) {
	for b.room() {
		select {
		case <-window:
			return
		case <-b.wake:
		}
	}
}

// room tells whether a batch of what waits could take more.
func (b *Batcher) room() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rows < b.o.MaxRows && !b.stopped
}

// take takes groups of at most MaxRows rows together, but at least one group.
func (b *Batcher) take() []*group {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, rows := 0, 0
	for n < len(b.waiting) && (n == 0 || rows+len(b.waiting[n].rows) <= b.o.MaxRows) {
		rows += len(b.waiting[n].rows)
		n++
	}
	if n == 0 {
		return nil
	}
	batch := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	if len(b.waiting) == 0 {
		b.waiting = nil
	}
	b.rows -= rows
	return batch
}

// commit commits a batch; where the database refuses a value, halves of it, until the one group that carries it stands alone.
func (b *Batcher) commit(batch []*group) {
	rows := make([]store.NewExecution, 0, len(batch))
	for n, g := range batch {
		for i := range g.rows {
			g.rows[i].Group = n
		}
		rows = append(rows, g.rows...)
	}
	begun := time.Now()
	result, err := b.insert(rows)
	b.o.Metrics.commit(len(rows), time.Since(begun), err)
	if err != nil && len(batch) > 1 && (errors.Is(err, protocol.ErrData) || errors.Is(err, store.ErrConflict)) {
		b.commit(batch[:len(batch)/2])
		b.commit(batch[len(batch)/2:])
		return
	}
	if err == nil {
		b.committed(rows, result)
	}
	for _, g := range batch {
		g.err = err
		if err == nil {
			g.result, result = result[:len(g.rows):len(g.rows)], result[len(g.rows):]
		}
		close(g.done)
	}
}

// committed tells of the rows that are new.
func (b *Batcher) committed(rows []store.NewExecution, result []store.Inserted) {
	fresh := rows
	for i := range result {
		if !isNew(&result[i]) {
			fresh = make([]store.NewExecution, 0, len(rows))
			for j := range rows {
				if isNew(&result[j]) {
					fresh = append(fresh, rows[j])
				}
			}
			break
		}
	}
	if len(fresh) > 0 {
		b.o.Metrics.Accepted.Add(float64(len(fresh)))
		b.o.Committed(fresh)
	}
}

func isNew(r *store.Inserted) bool {
	return !r.Duplicate && !r.Conflict && !r.Merged && r.Refused == nil && r.Err == nil
}

// insert inserts in one transaction, and finds out what became of a commit whose answer was lost.
func (b *Batcher) insert(rows []store.NewExecution) ([]store.Inserted, error) {
	ctx, cancel := context.WithTimeout(context.Background(), b.o.Patience)
	defer cancel()
	result, err := b.o.Rows.InsertExecutions(ctx, rows)
	if err == nil || !errors.Is(err, protocol.ErrUnknown) {
		return result, err
	}
	b.o.Log.Warn("the answer to a commit was lost: it is read back", "rows", len(rows), "error", err)
	again, cancelAgain := context.WithTimeout(context.Background(), b.o.Patience)
	defer cancelAgain()
	for try := 0; ; try++ {
		result, err = b.settle(again, rows)
		if err == nil || (!errors.Is(err, protocol.ErrUnknown) && again.Err() == nil && permanent(err)) {
			return result, err
		}
		select {
		case <-again.Done():
			b.o.Metrics.unknown.Inc()
			return nil, fmt.Errorf("%w (%w)", protocol.ErrUnknown, err)
		case <-time.After(min(time.Duration(20<<min(try, 5))*time.Millisecond, 500*time.Millisecond)):
		}
	}
}

// permanent tells whether trying again can't help.
func permanent(err error) bool { return errors.Is(err, protocol.ErrData) }

// settle looks whether the transaction happened, and does it again when it didn't. One that is still under way in the server lets the second
// wait at the primary key, and fail there when the first commits.
func (b *Batcher) settle(ctx context.Context, rows []store.NewExecution) ([]store.Inserted, error) {
	ids := make([]protocol.ID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	there, err := b.o.Rows.ExistingExecutions(ctx, ids)
	if err != nil {
		return nil, err
	}
	if len(there) == 0 {
		result, err := b.o.Rows.InsertExecutions(ctx, rows)
		for i := range result { // its key was committed by the first try, together with itself
			result[i].Duplicate = result[i].Duplicate && result[i].ID != rows[i].ID
		}
		return result, err
	}
	// It was one transaction: what isn't there was a duplicate by its key, and inserting it again says of what.
	result := make([]store.Inserted, len(rows))
	var left []store.NewExecution
	var places []int
	for i := range rows {
		if there[rows[i].ID] {
			result[i] = store.Inserted{ID: rows[i].ID}
			continue
		}
		left, places = append(left, rows[i]), append(places, i)
	}
	if len(left) == 0 {
		return result, nil
	}
	more, err := b.o.Rows.InsertExecutions(ctx, left)
	if err != nil {
		return nil, err
	}
	for i, p := range places {
		result[p] = more[i]
	}
	return result, nil
}

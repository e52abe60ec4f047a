package collect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

// queue is a report queue with a single active consumer: what was not acknowledged when a channel closes comes again, in order.
type queue struct {
	mu       sync.Mutex
	bodies   [][]byte
	acked    int
	opened   int
	ackFails bool
	current  *stream
}

type stream struct {
	q      *queue
	base   int
	out    chan Delivery
	stop   chan struct{}
	closed bool
}

func (q *queue) Consume(context.Context, int, int) (Stream, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened++
	s := &stream{q: q, base: q.acked, out: make(chan Delivery), stop: make(chan struct{})}
	q.current = s
	go func() {
		defer close(s.out)
		for tag := 1; ; tag++ {
			q.mu.Lock()
			i := s.base + tag - 1
			var body []byte
			if i < len(q.bodies) {
				body = q.bodies[i]
			}
			q.mu.Unlock()
			if body == nil {
				<-s.stop
				return
			}
			select {
			case s.out <- Delivery{Tag: uint64(tag), Body: body}:
			case <-s.stop:
				return
			}
		}
	}()
	return s, nil
}

func (s *stream) Deliveries() <-chan Delivery { return s.out }

func (s *stream) AckThrough(d Delivery) error {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if s.closed || s.q.ackFails {
		s.q.ackFails = false
		return errors.New("the channel is closed")
	}
	s.q.acked = s.base + int(d.Tag)
	return nil
}

func (s *stream) Close() error {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	return nil
}

func (q *queue) state() (acked, opened int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.acked, q.opened
}

// database holds rows; each transaction takes a while and may fail.
type database struct {
	protocol.Store
	mu      sync.Mutex
	rows    map[protocol.ID]*protocol.Row
	reports []protocol.StoredReport
	dead    []protocol.DeadLetter
	took    time.Duration
	fail    func(n int) error // of the n-th transaction; protocol.ErrUnknown: fails after it was committed
	txns    int
	active  int
	most    int
}

func (db *database) Txn(_ context.Context, _ string, fn func(protocol.Tx) error) error {
	db.mu.Lock()
	db.txns++
	n := db.txns
	db.active++
	db.most = max(db.most, db.active)
	db.mu.Unlock()
	defer func() { db.mu.Lock(); db.active--; db.mu.Unlock() }()
	time.Sleep(db.took)
	var err error
	if db.fail != nil {
		err = db.fail(n)
	}
	if err != nil && !errors.Is(err, protocol.ErrUnknown) {
		return err
	}
	t := &tx{db: db}
	if ferr := fn(t); ferr != nil {
		return ferr
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, r := range t.changes.Rows {
		*db.rows[r.ID] = r
	}
	db.reports = append(db.reports, t.changes.Reports...)
	db.dead = append(db.dead, t.changes.Dead...)
	return err
}

type tx struct {
	protocol.Tx
	db      *database
	changes protocol.Changes
}

func (t *tx) Now(context.Context) (time.Time, error) { return time.Now(), nil }

func (t *tx) Lock(_ context.Context, ids []protocol.ID) ([]protocol.Row, error) {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	var out []protocol.Row
	for _, id := range ids {
		if r, ok := t.db.rows[id]; ok {
			out = append(out, *r)
		}
	}
	return out, nil
}

func (t *tx) Write(_ context.Context, c *protocol.Changes) error { t.changes = *c; return nil }

func id(n int) (id protocol.ID) {
	id[0], id[14], id[15] = 1, byte(n>>8), byte(n)
	return id
}

type testBundle struct {
	*Collectors
	q    *queue
	db   *database
	news []protocol.News
	mu   sync.Mutex
}

func setup(t *testing.T, rows int, bodies ...[]byte) *testBundle {
	b := &testBundle{q: &queue{bodies: bodies}, db: &database{rows: map[protocol.ID]*protocol.Row{}, took: 3 * time.Millisecond}}
	for n := range rows {
		b.db.rows[id(n)] = &protocol.Row{ID: id(n), State: protocol.Queued, Attempt: 1}
	}
	b.Collectors = New(Options{
		Store: b.db, Source: b.q, Ready: func(context.Context) error { return nil },
		DeadLetters: func(_ context.Context, l []protocol.DeadLetter) error {
			b.db.mu.Lock()
			defer b.db.mu.Unlock()
			for _, d := range l { // the batch's memory is used again
				d.Detail = strings.Clone(d.Detail)
				b.db.dead = append(b.db.dead, d)
			}
			return nil
		},
		Follow: func(o protocol.Outcome) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.news = append(b.news, o.News...)
		},
		QueueName: func(n int) string { return fmt.Sprintf("flow.reports.%d", n) },
		Prefetch:  50, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: prometheus.NewRegistry(),
	})
	return b
}

// pass lets time pass until nothing moves.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func report(t *testing.T, entries ...protocol.Entry) []byte {
	t.Helper()
	b, err := json.Marshal(protocol.Report{V: 1, Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func final(n int) protocol.Entry {
	return protocol.Entry{Kind: protocol.EntryFinal, Execution: id(n), Attempt: 1, Seq: 1, State: protocol.Succeeded}
}

func (b *testBundle) allSucceeded(t *testing.T) {
	t.Helper()
	for _, r := range b.db.rows {
		if r.State != protocol.Succeeded {
			t.Errorf("%s is %s", r.ID, r.State)
		}
	}
}

func TestBatchesGrowWhileOneCommitsAndNeverOverlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var bodies [][]byte
		for n := range 2000 {
			bodies = append(bodies, report(t, final(n)))
		}
		b := setup(t, 2000, bodies...)
		b.Ensure(1)
		pass(5 * time.Second)
		acked, opened := b.q.state()
		if acked != 2000 || opened != 1 {
			t.Errorf("%d acknowledged on %d channels", acked, opened)
		}
		if b.db.most != 1 {
			t.Errorf("%d transactions of one shard at once", b.db.most)
		}
		if b.db.txns > 6 { // 1 + 512 + 512 + 512 + 463
			t.Errorf("2,000 waiting messages took %d transactions", b.db.txns)
		}
		b.allSucceeded(t)
		if len(b.news) != 2000 {
			t.Errorf("%d news", len(b.news))
		}
		if err := b.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingIsAcknowledgedThatWasNotCommitted(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{errors.New("connection refused"), protocol.ErrUnknown} {
		synctest.Test(t, func(t *testing.T) {
			b := setup(t, 100)
			for n := range 100 {
				b.q.bodies = append(b.q.bodies, report(t, final(n)))
			}
			b.db.fail = func(n int) error {
				if acked, _ := b.q.state(); n < 6 && acked > 0 {
					t.Errorf("%d acknowledged before anything is known to be committed", acked)
				}
				if n < 6 {
					return failure
				}
				return nil
			}
			b.Ensure(1)
			pass(30 * time.Second)
			acked, opened := b.q.state()
			if acked != 100 || opened != 6 {
				t.Errorf("%d acknowledged on %d channels, want 100 on 6", acked, opened)
			}
			b.allSucceeded(t)
			_ = b.Stop(t.Context())
		})
	}
}

func TestALostAcknowledgementIsOldNews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		step := protocol.Entry{Kind: protocol.EntryStep, Execution: id(0), Attempt: 1, Session: id(9), Run: 7, Seq: 1, Events: json.RawMessage(`[{}]`)}
		b := setup(t, 1, report(t, step))
		*b.db.rows[id(0)] = protocol.Row{ID: id(0), State: protocol.Running, Attempt: 1, Owner: id(9), Run: 7}
		b.q.ackFails = true
		b.Ensure(1)
		pass(10 * time.Second)
		if acked, opened := b.q.state(); acked != 1 || opened != 2 {
			t.Errorf("%d acknowledged on %d channels, want 1 on 2", acked, opened)
		}
		if len(b.db.reports) != 1 {
			t.Errorf("the step stands %d times in the reports", len(b.db.reports))
		}
		_ = b.Stop(t.Context())
	})
}

func TestMQ6_WhatCantBeReadIsParkedAndTheRestApplies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		odd := final(1)
		odd.State = protocol.Running
		b := setup(t, 4, report(t, final(0)), []byte(`{"v":1,"entries":{}}`), []byte("\x00\xff"), []byte(`{"entries":[]}`), report(t, odd, final(2)), report(t, final(1), final(3)))
		b.Ensure(1)
		pass(5 * time.Second)
		if acked, opened := b.q.state(); acked != 6 || opened != 1 {
			t.Errorf("%d acknowledged on %d channels", acked, opened)
		}
		b.allSucceeded(t)
		if len(b.db.dead) != 4 {
			t.Errorf("%d dead letters: %+v", len(b.db.dead), b.db.dead)
		}
		for _, d := range b.db.dead {
			if d.Reason != "unparseable" || d.Origin != "flow.reports.0" || len(d.Body) == 0 {
				t.Errorf("dead letter %+v", d)
			}
		}
		_ = b.Stop(t.Context())
	})
}

func TestANewerSchemaIsLeftToANewerBuild(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 3, report(t, final(0)), report(t, final(1)), []byte(`{"v":2,"entries":"in another shape"}`), report(t, final(2)))
		b.Ensure(1)
		pass(20 * time.Second)
		acked, opened := b.q.state()
		if acked != 2 {
			t.Errorf("%d acknowledged, want what came before", acked)
		}
		if opened < 3 || opened > 10 {
			t.Errorf("the queue was taken %d times in 20 s", opened)
		}
		if len(b.db.dead) != 0 || b.db.rows[id(2)].State != protocol.Queued {
			t.Error("a message behind it was touched, or it was parked")
		}
		_ = b.Stop(t.Context())
	})
}

func TestMQ12_AGapComesBackOnceAndIsParkedThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gap := protocol.Entry{Kind: protocol.EntryStep, Execution: id(0), Attempt: 1, Session: id(9), Run: 7, Seq: 3, Base: 2, Events: json.RawMessage(`[{}]`)}
		b := setup(t, 2, report(t, final(1)), report(t, gap))
		*b.db.rows[id(0)] = protocol.Row{ID: id(0), State: protocol.Running, Attempt: 1, Owner: id(9), Run: 7}
		b.Ensure(1)
		pass(10 * time.Second)
		// Three channels when the first batch held both: the one before the gap is committed by itself then, which begins the count anew.
		if acked, opened := b.q.state(); acked != 2 || opened < 2 || opened > 3 {
			t.Errorf("%d acknowledged on %d channels, want 2 on 2 or 3", acked, opened)
		}
		if r := b.db.rows[id(0)]; r.State != protocol.Queued || r.Attempt != 2 {
			t.Errorf("the execution is %s in attempt %d, want queued in 2", r.State, r.Attempt)
		}
		if len(b.db.dead) != 1 || b.db.dead[0].Reason != "behind" {
			t.Errorf("dead letters %+v", b.db.dead)
		}
		_ = b.Stop(t.Context())
	})
}

func TestMQ11_AStopCommitsAcknowledgesAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var bodies [][]byte
		for n := range 1500 {
			bodies = append(bodies, report(t, final(n)))
		}
		b := setup(t, 1500, bodies...)
		b.db.took = time.Second
		b.Ensure(1)
		pass(1500 * time.Millisecond) // in the second transaction
		begin := time.Now()
		if err := b.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 500*time.Millisecond {
			t.Errorf("the stop took %v, want what the commit took", took)
		}
		done := 0
		for _, r := range b.db.rows {
			if r.State == protocol.Succeeded {
				done++
			}
		}
		acked, _ := b.q.state()
		if done != acked || done < 513 || done > 514 || !b.q.current.closed {
			t.Errorf("%d committed, %d acknowledged, channel closed: %v", done, acked, b.q.current.closed)
		}
	})
}

func TestMQ10_AQueueIsLeftToOthersWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 1, report(t, final(0)))
		back := time.Now().Add(time.Minute)
		b.o.Ready = func(context.Context) error {
			if time.Now().Before(back) {
				return errors.New("away")
			}
			return nil
		}
		b.Ensure(1)
		pass(50 * time.Second)
		if _, opened := b.q.state(); opened != 0 {
			t.Errorf("the queue was taken %d times", opened)
		}
		pass(15 * time.Second)
		b.allSucceeded(t)
		_ = b.Stop(t.Context())
	})
}

func TestMQ16_EnsureOnlyGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 0)
		b.Ensure(2)
		b.Ensure(4)
		b.Ensure(1)
		synctest.Wait()
		if _, opened := b.q.state(); opened != 4 || b.Shards() != 4 {
			t.Errorf("%d queues taken, %d shards", opened, b.Shards())
		}
		_ = b.Stop(t.Context())
		b.Ensure(8)
		if b.Shards() != 4 {
			t.Error("a queue was taken after the stop")
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"shard":0,"entries":[{"kind":"final","execution":"0198c5b2-7d1e-7c3a-9f00-0123456789ab","attempt":1,"seq":1,"state":"succeeded"}]}`))
	f.Add([]byte(`{"v":9}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := &batch{}
		b.add("q", Delivery{Body: slices.Clone(body)})
		if b.newer == (b.messages == 1) {
			t.Fatalf("neither taken nor handed back, or both: %q", body)
		}
		for i := range b.entries {
			if err := check(&b.entries[i]); err != nil {
				t.Fatal(err)
			}
		}
	})
}

package rescue

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"flowplatform/services/internal/protocol"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	for name, tt := range map[string]struct {
		woken int
		next  time.Duration
		err   error
		pause time.Duration
		aimed bool
	}{
		"nothing in sight":           {0, 0, nil, step, false},
		"one soon":                   {0, 300 * time.Millisecond, nil, 300 * time.Millisecond, true},
		"one beyond the next look":   {0, 1500 * time.Millisecond, nil, step, false},
		"woken, one soon":            {5, 10 * time.Millisecond, nil, 10 * time.Millisecond, true},
		"woken, maybe more is due":   {500, 0, nil, 0, false},
		"due but somebody else woke": {0, 0, nil, step, false},
		"the database is away":       {0, 0, errors.New("away"), step / 4, false},
	} {
		pause, aim := plan(tt.woken, tt.next, tt.err, now)
		if pause != tt.pause || aim.IsZero() == tt.aimed {
			t.Errorf("%s: pause %v, aim %v", name, pause, aim)
		}
	}
}

// rows is a database with one timer, one dead owner and one unhanded execution.
type rows struct {
	protocol.Store
	mu      sync.Mutex
	due     time.Time
	asked   int
	written int
	woken   []time.Time
	live    []protocol.Session
	ended   []protocol.SessionEnd
}

func (r *rows) DueWaits(_ context.Context, horizon time.Duration, _ int) ([]protocol.OpenWait, time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	now := time.Now()
	if r.due.IsZero() || r.due.After(now.Add(horizon)) {
		return nil, now, nil
	}
	return []protocol.OpenWait{{Execution: protocol.ID{1}, Node: "n", Kind: "timer", Due: r.due}}, now, nil
}
func (r *rows) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ended)
}
func (r *rows) Unhanded(context.Context, time.Duration, int) ([]protocol.ID, error) { return nil, nil }
func (r *rows) Overdue(context.Context, int) ([]protocol.ID, error)                 { return nil, nil }
func (r *rows) DeadOwners(context.Context, int) ([]protocol.ID, error) {
	return []protocol.ID{{9}}, nil
}
func (r *rows) Mail(context.Context, time.Duration, int) ([]protocol.ID, error) { return nil, nil }
func (r *rows) LostRemote(context.Context, int) ([]protocol.ID, error)          { return nil, nil }
func (r *rows) LiveSessions(context.Context) ([]protocol.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live, nil
}
func (r *rows) Tasks(context.Context, []protocol.ID) ([]protocol.Task, error) { return nil, nil }
func (r *rows) MarkHanded(context.Context, []protocol.Handed) error           { return nil }
func (r *rows) PublishTasks(_ context.Context, t []protocol.Task) []bool      { return make([]bool, len(t)) }
func (r *rows) Txn(_ context.Context, _ string, fn func(protocol.Tx) error) error {
	r.mu.Lock()
	r.written++
	r.mu.Unlock()
	return fn(&rowTx{r: r})
}

type rowTx struct {
	protocol.Tx
	r *rows
}

func (t *rowTx) Now(context.Context) (time.Time, error) { return time.Now(), nil }
func (t *rowTx) Lock(context.Context, []protocol.ID) ([]protocol.Row, error) {
	return []protocol.Row{{ID: protocol.ID{1}, State: protocol.Waiting, Attempt: 1}}, nil
}
func (t *rowTx) OpenWaits(context.Context, []protocol.ID) ([]protocol.OpenWait, error) {
	return []protocol.OpenWait{{Execution: protocol.ID{1}, Node: "n", Kind: "timer", Due: t.r.due}}, nil
}
func (t *rowTx) Write(context.Context, *protocol.Changes) error {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.r.woken = append(t.r.woken, time.Now())
	t.r.due = time.Time{}
	return nil
}
func (t *rowTx) EndSessions(_ context.Context, ends []protocol.SessionEnd) ([]protocol.ID, error) {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.r.ended = append(t.r.ended, ends...)
	t.r.live = nil
	var ids []protocol.ID
	for _, e := range ends {
		ids = append(ids, e.ID)
	}
	return ids, nil
}

type term struct{ closed atomic.Bool }

func (t *term) Valid() bool { return !t.closed.Load() }

type sent struct {
	mu      sync.Mutex
	reports []protocol.Report
}

func (s *sent) publish(_ context.Context, _ int, body []byte) error {
	var r protocol.Report
	if err := json.Unmarshal(body, &r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, r)
	return nil
}

func setup(t *testing.T, r *rows) (*Rescue, *sent) {
	s := &sent{}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	begin := time.Now()
	return New(Options{
		Store: r, Publisher: r, Lease: 15 * time.Second, Clock: func() time.Duration { return time.Since(begin) },
		Sender: &Sender{Shards: func() int { return 3 }, Publish: s.publish, Log: log},
		Follow: func(protocol.Outcome) {},
		Log:    log, Registerer: prometheus.NewRegistry(),
	}), s
}

func TestATimerFiresWhenItIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rows{due: time.Now().Add(7*time.Second + 123*time.Millisecond)}
		due := r.due
		x, _ := setup(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		x.Work(ctx, &term{})
		if len(r.woken) != 1 || r.woken[0] != due {
			t.Errorf("woken %v, due %v", r.woken, due)
		}
		if r.asked > 24 {
			t.Errorf("%d looks in 20 s", r.asked)
		}
		if n := value(x.metrics.woken); n != 1 {
			t.Errorf("%v counted", n)
		}
	})
}

func TestRecoverIsRepeatedToEveryShard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, s := setup(t, &rows{})
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		x.Work(ctx, &term{})
		shards := map[int]int{}
		for _, r := range s.reports {
			shards[r.Shard]++
			if r.V != protocol.SchemaVersion || len(r.Entries) != 1 || r.Entries[0].Kind != protocol.EntryRecover || r.Entries[0].Session != (protocol.ID{9}) {
				t.Fatalf("%+v", r)
			}
		}
		if len(shards) != 3 || shards[0] != 3 || shards[2] != 3 {
			t.Errorf("sent by shard: %v, want 3 times to each of 3", shards)
		}
	})
}

func TestGO2_ASilentSessionIsJudgedAfterItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rows{live: []protocol.Session{{ID: protocol.ID{5}, Beat: 41, Alive: true}}}
		x, s := setup(t, r)
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		go x.Work(ctx, &term{})
		time.Sleep(15*time.Second - time.Millisecond)
		synctest.Wait()
		if r.count() != 0 {
			t.Fatalf("judged after %v", time.Since(begin))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		cancel()
		synctest.Wait()
		if len(r.ended) != 1 || r.ended[0].Beat != 41 {
			t.Fatalf("ended %+v", r.ended)
		}
		found := 0
		for _, rep := range s.reports {
			if rep.Entries[0].Session == (protocol.ID{5}) {
				found++
			}
		}
		if found != 3 {
			t.Errorf("recover sent to %d shards at once, want 3", found)
		}
	})
}

// A leader that was paused comes back with its context alive and its window shut.
func TestNothingIsWrittenOutsideTheWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rows{due: time.Now(), live: []protocol.Session{{ID: protocol.ID{5}, Beat: 41, Alive: true}}}
		x, s := setup(t, r)
		tm := &term{}
		tm.closed.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		x.Work(ctx, tm)
		if r.asked+r.written+len(s.reports) != 0 {
			t.Errorf("%d looks, %d transactions, %d reports", r.asked, r.written, len(s.reports))
		}
	})
}

func TestSoonTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		s := &Sender{Shards: func() int { return 1 }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Publish: func(context.Context, int, []byte) error {
			if calls.Add(1) < 4 {
				return errors.New("away")
			}
			return nil
		}}
		s.Soon([]protocol.ID{{1}})
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if calls.Load() != 4 {
			t.Errorf("%d calls", calls.Load())
		}
		s.Soon([]protocol.ID{{1}})
		synctest.Wait()
		if calls.Load() != 4 {
			t.Error("sent after the stop")
		}
	})
}

func value(m prometheus.Metric) float64 {
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		panic(err)
	}
	return out.GetCounter().GetValue()
}

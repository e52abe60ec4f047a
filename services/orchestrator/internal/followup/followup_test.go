package followup

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"flowplatform/services/internal/protocol"
)

// world is the database and the broker.
type world struct {
	protocol.Store
	mu     sync.Mutex
	asked  []int
	marked int
	fail   error
}

func (w *world) Tasks(_ context.Context, ids []protocol.ID) ([]protocol.Task, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, len(ids))
	out := make([]protocol.Task, len(ids))
	for i, id := range ids {
		out[i] = protocol.Task{ID: id, Attempt: 2}
	}
	return out, w.fail
}

func (w *world) MarkHanded(_ context.Context, h []protocol.Handed) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.marked += len(h)
	return nil
}

func (w *world) PublishTasks(_ context.Context, tasks []protocol.Task) []bool {
	time.Sleep(5 * time.Millisecond)
	ok := make([]bool, len(tasks))
	for i := range ok {
		ok[i] = true
	}
	return ok
}

func setup(t *testing.T, w *world, events func(context.Context, []protocol.News) error) *Followup {
	return New(Options{Store: w, Publisher: w, Events: events, Control: func(context.Context, []protocol.CancelOrder) error { return nil },
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: prometheus.NewRegistry()})
}

// RD-1: a Redis that hangs costs events, which are counted, and nothing else.
func TestAHangingLiveViewHoldsNothingUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		f := setup(t, w, func(ctx context.Context, _ []protocol.News) error { <-ctx.Done(); return ctx.Err() })
		begin := time.Now()
		const batches, size = 300, 100
		for range batches {
			f.Take(protocol.Outcome{HandOut: make([]protocol.ID, size), News: make([]protocol.News, size)})
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("taking outcomes took %v", took)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if w.marked != batches*size {
			t.Errorf("%d tasks handed out while Redis hangs, want %d", w.marked, batches*size)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if err := f.Stop(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		dropped := value(f.metrics.drops.WithLabelValues("events"))
		if least := float64(batches*size - maxNews); dropped < least {
			t.Errorf("%v events counted as dropped, want at least %v", dropped, least)
		}
	})
}

func TestAStopWorksOffWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		told := 0
		f := setup(t, w, func(_ context.Context, n []protocol.News) error { told += len(n); return nil })
		f.Take(protocol.Outcome{HandOut: make([]protocol.ID, 1700), News: make([]protocol.News, 1700)})
		if err := f.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if w.marked != 1700 || told != 1700 {
			t.Errorf("%d handed out, %d told, want 1700 each", w.marked, told)
		}
		for _, n := range w.asked {
			if n > batchSize {
				t.Errorf("%d at once", n)
			}
		}
		f.Take(protocol.Outcome{News: make([]protocol.News, 3)})
		if d := value(f.metrics.drops.WithLabelValues("events")); d != 3 {
			t.Errorf("%v dropped after the stop, want 3", d)
		}
	})
}

func TestAFailureIsCountedAndLeftToTheReconciler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{fail: errors.New("away")}
		f := setup(t, w, func(context.Context, []protocol.News) error { return nil })
		f.Take(protocol.Outcome{HandOut: make([]protocol.ID, 7)})
		_ = f.Stop(t.Context())
		if n := value(f.metrics.failed.WithLabelValues("tasks")); n != 7 || w.marked != 0 {
			t.Errorf("%v failed, %d marked", n, w.marked)
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

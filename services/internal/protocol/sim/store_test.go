package sim

import (
	"context"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/protocol/storetest"
)

// TestStore runs the suite that PostgreSQL passes too over the simulator's memory.
func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Fixture {
		s := newSim(1, Options{})
		s.faulty, s.quiet = false, true
		h := s.host('g', 0)
		h.up = true
		o := &outside{s: s, h: h}
		return storetest.Fixture{
			Store: o,
			NewID: func() protocol.ID {
				s.db.execs = append(s.db.execs, &execution{})
				// Sessions take their ids from here too.
				id := idOf('e', len(s.db.execs)-1)
				return id
			},
			Insert: func(_ *testing.T, seeds ...storetest.Seed) {
				for _, seed := range seeds {
					e := s.execution(seed.ID)
					e.exists = true
					e.row = protocol.Row{ID: seed.ID, Flow: seed.Flow, State: protocol.Queued, Attempt: 1, Shard: seed.Shard, Priority: seed.Priority, Pool: seed.Pool, QueuedAt: s.time()}
					e.facts = protocol.Task{Flow: seed.Flow, Version: seed.Version, Priority: seed.Priority, Pool: seed.Pool, Trigger: seed.Trigger, Labels: seed.Labels, Input: seed.Input, Deadline: seed.Deadline, CreatedAt: s.time()}
				}
			},
			Row: func(_ *testing.T, id protocol.ID) protocol.Row { return s.execution(id).row },
			Result: func(_ *testing.T, id protocol.ID) (protocol.FinalResult, bool) {
				if r := s.execution(id).result; r != nil {
					return *r, true
				}
				return protocol.FinalResult{}, false
			},
			Reports: func(_ *testing.T, id protocol.ID) []protocol.StoredReport { return s.execution(id).reports },
			Waits:   func(_ *testing.T, id protocol.ID) []protocol.OpenWait { return s.execution(id).waits },
			Call: func(_ *testing.T, parent, child protocol.ID) {
				s.execution(parent).row.Calls, s.execution(child).row.Parent = true, parent
			},
			Pass: func() { s.now++ },
			Dead: func(*testing.T) []protocol.DeadLetter { return s.db.dead },
		}
	})
}

// outside runs each call of the store as a process of the simulation, to its end.
type outside struct {
	s *Sim
	h *host
}

func (o *outside) run(fn func(store)) {
	ended := false
	o.s.spawn(o.h, func(p *proc) { fn(store{p}); ended = true })
	for !ended {
		if !o.s.runOne() {
			o.s.now++
		}
	}
}

func call[T any](o *outside, fn func(store) (T, error)) (out T, err error) {
	o.run(func(st store) { out, err = fn(st) })
	return out, err
}

func (o *outside) Txn(ctx context.Context, name string, fn func(protocol.Tx) error) (err error) {
	o.run(func(st store) { err = st.Txn(ctx, name, fn) })
	return err
}

func (o *outside) LostRemote(ctx context.Context, limit int) ([]protocol.ID, error) {
	return call(o, func(st store) ([]protocol.ID, error) { return st.LostRemote(ctx, limit) })
}

func (o *outside) Tasks(ctx context.Context, ids []protocol.ID) ([]protocol.Task, error) {
	return call(o, func(st store) ([]protocol.Task, error) { return st.Tasks(ctx, ids) })
}

func (o *outside) MarkHanded(ctx context.Context, h []protocol.Handed) (err error) {
	o.run(func(st store) { err = st.MarkHanded(ctx, h) })
	return err
}

func (o *outside) Unhanded(ctx context.Context, age time.Duration, limit int) ([]protocol.ID, error) {
	return call(o, func(st store) ([]protocol.ID, error) { return st.Unhanded(ctx, age, limit) })
}

func (o *outside) DueWaits(ctx context.Context, horizon time.Duration, limit int) (waits []protocol.OpenWait, now time.Time, err error) {
	o.run(func(st store) { waits, now, err = st.DueWaits(ctx, horizon, limit) })
	return waits, now, err
}

func (o *outside) Overdue(ctx context.Context, limit int) ([]protocol.ID, error) {
	return call(o, func(st store) ([]protocol.ID, error) { return st.Overdue(ctx, limit) })
}

func (o *outside) LiveSessions(ctx context.Context) ([]protocol.Session, error) {
	return call(o, func(st store) ([]protocol.Session, error) { return st.LiveSessions(ctx) })
}

func (o *outside) Mail(ctx context.Context, age time.Duration, limit int) ([]protocol.ID, error) {
	return call(o, func(st store) ([]protocol.ID, error) { return st.Mail(ctx, age, limit) })
}

func (o *outside) DeadOwners(ctx context.Context, limit int) ([]protocol.ID, error) {
	return call(o, func(st store) ([]protocol.ID, error) { return st.DeadOwners(ctx, limit) })
}

func (o *outside) DueHolds(ctx context.Context, horizon time.Duration, limit int) (waits []protocol.OpenWait, now time.Time, err error) {
	o.run(func(st store) { waits, now, err = st.DueHolds(ctx, horizon, limit) })
	return waits, now, err
}

func (o *outside) Roomy(ctx context.Context, after string, limit int) ([]string, error) {
	return call(o, func(st store) ([]string, error) { return st.Roomy(ctx, after, limit) })
}

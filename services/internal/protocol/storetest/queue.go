package storetest

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

func tasks(t *testing.T, s *suite) {
	ids := s.insert(t, 5)
	full := s.NewID()
	flowID := s.NewID()
	deadline := s.now(t).Add(time.Hour).Truncate(time.Microsecond)
	s.Insert(t, Seed{ID: full, Flow: flowID, Version: 7, Shard: 0, Priority: "high", Pool: "gpu", Trigger: "webhook", Labels: map[string]string{"team": "sales"}, Input: json.RawMessage(`{"n":12345678901234567890}`), Deadline: deadline})
	session := s.session(t)
	s.own(t, session, ids[0])
	s.change(t, ids[1], func(r *protocol.Row, _ *protocol.Changes) { r.Hold = "flow is paused" })
	s.change(t, ids[2], func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.Waiting })
	s.change(t, ids[3], func(r *protocol.Row, c *protocol.Changes) {
		r.Attempt, r.Deaths = 3, protocol.SuspectDeaths
		c.Reports = []protocol.StoredReport{ // written in no order
			{Execution: r.ID, Attempt: 2, Seq: 1, Events: json.RawMessage(`["c"]`)}, {Execution: r.ID, Attempt: 1, Seq: 2, Events: json.RawMessage(`["b"]`)},
			{Execution: r.ID, Attempt: 3, Seq: 0, Events: json.RawMessage(`["d"]`)}, {Execution: r.ID, Attempt: 1, Seq: 1, Events: json.RawMessage(`["a"]`)},
		}
	})
	got := must[[]protocol.Task](t)(s.Store.Tasks(s.ctx, []protocol.ID{full, ids[0], ids[1], ids[2], ids[3], ids[4], s.NewID()}))
	by := map[protocol.ID]protocol.Task{}
	for _, task := range got {
		by[task.ID] = task
	}
	if len(got) != 3 || len(by) != 3 {
		t.Fatalf("%d tasks, want those of the three that may be handed out: %+v", len(got), got)
	}
	plain := by[ids[4]]
	if plain.V != protocol.SchemaVersion || plain.Attempt != 1 || plain.Version != 1 || plain.Suspect || len(plain.Steps) != 0 || plain.CreatedAt.IsZero() {
		t.Fatalf("plain task %+v", plain)
	}
	again := by[ids[3]]
	var steps string
	for _, e := range again.Steps {
		steps += string(e)
	}
	if again.Attempt != 3 || !again.Suspect || steps != `["a"]["b"]["c"]["d"]` {
		t.Fatalf("task with steps %+v, steps %s", again, steps)
	}
	f := by[full]
	if f.Flow != flowID || f.Version != 7 || f.Priority != "high" || f.Pool != "gpu" || f.Trigger != "webhook" || f.Labels["team"] != "sales" || string(f.Input) != `{"n":12345678901234567890}` || !f.Deadline.Equal(deadline) {
		t.Fatalf("full task %+v", f)
	}
	if none := must[[]protocol.Task](t)(s.Store.Tasks(s.ctx, nil)); len(none) != 0 {
		t.Fatalf("no ids gave %v", none)
	}
}

func marks(t *testing.T, s *suite) {
	ids := s.insert(t, 4)
	session := s.session(t)
	s.own(t, session, ids[1])
	s.change(t, ids[2], func(r *protocol.Row, _ *protocol.Changes) { r.Attempt, r.Handed = 5, 5 })
	err := s.Store.MarkHanded(s.ctx, []protocol.Handed{{ID: ids[3], Attempt: 1}, {ID: ids[0], Attempt: 1}, {ID: ids[1], Attempt: 1}, {ID: ids[2], Attempt: 2}, {ID: s.NewID(), Attempt: 1}, {ID: ids[0], Attempt: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 0, 5, 1} {
		if got := s.Row(t, ids[i]).Handed; got != want {
			t.Errorf("row %d: handed %d, want %d", i, got, want)
		}
	}
	if err := s.Store.MarkHanded(s.ctx, nil); err != nil {
		t.Fatal(err)
	}
}

func unhanded(t *testing.T, s *suite) {
	ids := s.insert(t, 6)
	list := func(age time.Duration, limit int) []protocol.ID {
		return must[[]protocol.ID](t)(s.Store.Unhanded(s.ctx, age, limit))
	}
	same(t, "too young", list(time.Hour, 10), nil)
	same(t, "all", list(0, 10), ids)
	if got := list(0, 2); len(got) != 2 {
		t.Fatalf("limit 2 gave %v", got)
	}
	session := s.session(t)
	s.own(t, session, ids[0])
	s.change(t, ids[1], func(r *protocol.Row, _ *protocol.Changes) { r.Hold = "paused" })
	s.change(t, ids[2], func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.Cancelled })
	if err := s.Store.MarkHanded(s.ctx, []protocol.Handed{{ID: ids[3], Attempt: 1}}); err != nil {
		t.Fatal(err)
	}
	same(t, "two are left", list(0, 10), ids[4:])
	same(t, "too young still", list(time.Hour, 10), nil)
	same(t, "asked again", list(0, 10), ids[4:])
	more := s.insert(t, 2)
	same(t, "and new ones", list(0, 10), append(slices.Clone(ids[4:]), more...))
	s.change(t, ids[1], func(r *protocol.Row, _ *protocol.Changes) { r.Hold = "" })
	same(t, "and one that is held no more", list(0, 10), append([]protocol.ID{ids[1], ids[4], ids[5]}, more...))
}

func unhandedAgain(t *testing.T, s *suite) {
	id := s.insert(t, 1)[0]
	list := func() []protocol.ID { return must[[]protocol.ID](t)(s.Store.Unhanded(s.ctx, 0, 10)) }
	if err := s.Store.MarkHanded(s.ctx, []protocol.Handed{{ID: id, Attempt: 1}}); err != nil {
		t.Fatal(err)
	}
	same(t, "handed", list(), nil)
	s.change(t, id, func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.Waiting })
	same(t, "waiting", list(), nil)
	s.insert(t, 1) // others in between
	list()
	s.change(t, id, func(r *protocol.Row, _ *protocol.Changes) { r.State, r.Attempt = protocol.Queued, 2 })
	if got := list(); !slices.Contains(got, id) {
		t.Fatalf("woken and not handed out, but not listed: %v", got)
	}
}

func waits(t *testing.T, s *suite) {
	ids := s.insert(t, 2)
	now := s.now(t).Truncate(time.Microsecond)
	wait := func(id protocol.ID, node string, due time.Time) protocol.OpenWait {
		return protocol.OpenWait{Execution: id, Node: node, Kind: flow.WaitTimer, Key: "k", Reason: "a delay", Due: due, Since: now}
	}
	write := func(c protocol.Changes) {
		s.txn(t, func(tx protocol.Tx) error {
			rows, err := tx.Lock(s.ctx, ids)
			if err != nil {
				return err
			}
			c.Rows = rows
			return tx.Write(s.ctx, &c)
		})
	}
	open := func(of ...protocol.ID) (out []protocol.OpenWait) {
		s.txn(t, func(tx protocol.Tx) (err error) {
			if _, err = tx.Lock(s.ctx, of); err == nil {
				out, err = tx.OpenWaits(s.ctx, of)
			}
			return err
		})
		return out
	}
	first := now.Add(time.Minute)
	write(protocol.Changes{Opened: []protocol.OpenWait{wait(ids[0], "a", first), wait(ids[0], "b", time.Time{}), wait(ids[1], "a", first)}})
	write(protocol.Changes{Opened: []protocol.OpenWait{wait(ids[0], "a", now.Add(time.Hour))}}) // open already: stays as it is
	got := open(ids[0])
	if len(got) != 2 || got[0].Node != "a" || !got[0].Due.Equal(first) || !got[1].Due.IsZero() || got[0].Key != "k" || got[0].Reason != "a delay" || !got[0].Since.Equal(now) || !got[0].Met.IsZero() {
		t.Fatalf("open waits %+v", got)
	}
	if n := len(open(ids...)); n != 3 {
		t.Fatalf("%d open waits of both, want 3", n)
	}
	met := got[0]
	met.Met = now.Add(time.Second)
	write(protocol.Changes{Met: []protocol.OpenWait{met}})
	later := met
	later.Met = now.Add(time.Minute)
	write(protocol.Changes{Met: []protocol.OpenWait{later}}) // met already: nothing changes
	if got := open(ids[0]); len(got) != 1 || got[0].Node != "b" {
		t.Fatalf("open waits %+v", got)
	}
	all := s.Waits(t, ids[0])
	if len(all) != 2 || !all[0].Met.Equal(met.Met) {
		t.Fatalf("all waits %+v", all)
	}
	// The same node may wait again once its wait was met; and a wait may be opened and met in one Write.
	again := wait(ids[0], "a", first)
	done := wait(ids[1], "c", first)
	done.Met = now
	write(protocol.Changes{Opened: []protocol.OpenWait{again, wait(ids[1], "c", first)}, Met: []protocol.OpenWait{done}})
	if n := len(s.Waits(t, ids[0])); n != 3 {
		t.Fatalf("%d waits, want the met one and a new one", n)
	}
	if got := open(ids[1]); len(got) != 1 || got[0].Node != "a" {
		t.Fatalf("open waits of the other: %+v", got)
	}
}

func dueWaits(t *testing.T, s *suite) {
	ids := s.insert(t, 4)
	now := s.now(t)
	open := func(id protocol.ID, state protocol.State, node string, due time.Time) {
		s.change(t, id, func(r *protocol.Row, c *protocol.Changes) {
			r.State = state
			c.Opened = []protocol.OpenWait{{Execution: id, Node: node, Kind: flow.WaitTimer, Due: due, Since: now}}
		})
	}
	open(ids[0], protocol.Waiting, "soon", now.Add(30*time.Second))
	open(ids[1], protocol.Waiting, "past", now.Add(-time.Second))
	open(ids[2], protocol.Queued, "queued", now.Add(-time.Second))
	open(ids[3], protocol.Waiting, "never", time.Time{})
	open(ids[3], protocol.Waiting, "late", now.Add(time.Hour))
	list := func(horizon time.Duration, limit int) (nodes []string) {
		waits, clock, err := s.Store.DueWaits(s.ctx, horizon, limit)
		if err != nil {
			t.Fatal(err)
		}
		if clock.Before(now) || clock.Sub(now) > time.Minute {
			t.Fatalf("the store's clock says %v, it was %v", clock, now)
		}
		for _, w := range waits {
			nodes = append(nodes, w.Node)
		}
		return nodes
	}
	for _, c := range []struct {
		horizon time.Duration
		limit   int
		want    []string
	}{{0, 10, []string{"past"}}, {10 * time.Minute, 10, []string{"past", "soon"}}, {10 * time.Minute, 1, []string{"past"}}, {2 * time.Hour, 10, []string{"past", "soon", "late"}}} {
		if got := list(c.horizon, c.limit); !slices.Equal(got, c.want) {
			t.Errorf("horizon %v, limit %d: %v, want %v", c.horizon, c.limit, got, c.want)
		}
	}
	s.change(t, ids[1], func(r *protocol.Row, c *protocol.Changes) {
		r.State, r.Attempt = protocol.Queued, 2
		c.Met = []protocol.OpenWait{{Execution: r.ID, Node: "past", Met: now}}
	})
	s.change(t, ids[0], func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.Cancelled })
	if got := list(2*time.Hour, 10); !slices.Equal(got, []string{"late"}) {
		t.Errorf("after one was met and one cancelled: %v", got)
	}
}

func overdue(t *testing.T, s *suite) {
	now := s.now(t)
	deadlines := []time.Duration{-time.Second, -2 * time.Second, time.Hour, -3 * time.Second, -4 * time.Second, 0}
	ids := make([]protocol.ID, len(deadlines))
	for i, d := range deadlines {
		ids[i] = s.NewID()
		seed := Seed{ID: ids[i], Flow: s.NewID(), Version: 1, Priority: "normal"}
		if d != 0 {
			seed.Deadline = now.Add(d)
		}
		s.Insert(t, seed)
	}
	s.change(t, ids[1], func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.Waiting })
	s.change(t, ids[3], func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.Succeeded })
	s.change(t, ids[4], func(r *protocol.Row, _ *protocol.Changes) { r.Cancel = protocol.Cancelled })
	list := func(limit int) []protocol.ID { return must[[]protocol.ID](t)(s.Store.Overdue(s.ctx, limit)) }
	if first := list(10); len(first) == 0 {
		t.Skip("this store has no deadlines")
	}
	same(t, "overdue", list(10), ids[:2])
	if got := list(1); len(got) != 1 {
		t.Fatalf("limit 1 gave %v", got)
	}
	s.change(t, ids[0], func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.TimedOut })
	same(t, "one was ended", list(10), ids[1:2])
}

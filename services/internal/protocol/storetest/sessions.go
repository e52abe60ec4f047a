package storetest

import (
	"errors"
	"testing"

	"flowplatform/services/internal/protocol"
)

func sessions(t *testing.T, s *suite) {
	a, b := s.session(t), s.session(t)
	unknown := s.NewID()
	s.txn(t, func(tx protocol.Tx) error { // again: nothing happens
		return tx.OpenSession(s.ctx, protocol.OpenSessionRequest{Session: a, Worker: "other"})
	})
	beat := func(ids ...protocol.ID) map[protocol.ID]bool {
		alive := map[protocol.ID]bool{}
		s.txn(t, func(tx protocol.Tx) error {
			beaten, err := tx.Beat(s.ctx, ids)
			for id, orders := range beaten {
				alive[id] = true
				if orders.Drain || orders.Slots != 0 || orders.PausedPool != "" || len(orders.PausedTypes) > 0 {
					t.Errorf("nobody asks anything of it: %+v", orders)
				}
			}
			return err
		})
		return alive
	}
	alive := func(ids ...protocol.ID) (m map[protocol.ID]bool) {
		s.txn(t, func(tx protocol.Tx) (err error) { m, err = tx.Alive(s.ctx, ids); return err })
		return m
	}
	beats := func() map[protocol.ID]protocol.Session {
		out := map[protocol.ID]protocol.Session{}
		for _, v := range must[[]protocol.Session](t)(s.Store.LiveSessions(s.ctx)) {
			out[v.ID] = v
		}
		return out
	}
	if live := beats(); len(live) != 2 || live[a].Beat != 1 || !live[a].Alive || live[a].Worker != "w" {
		t.Fatalf("live sessions %+v", live)
	}
	if got := beat(a, b, unknown, a); !got[a] || !got[b] || got[unknown] {
		t.Fatalf("beat answered %v", got)
	}
	if live := beats(); live[a].Beat != 2 || live[b].Beat != 2 {
		t.Fatalf("beats %+v", live)
	}
	if got := alive(a, unknown); !got[a] || got[unknown] {
		t.Fatalf("alive answered %v", got)
	}
	same(t, "ended", s.end(t, a, unknown), []protocol.ID{a})
	same(t, "ended again", s.end(t, a), nil)
	if got := alive(a, b); got[a] || !got[b] {
		t.Fatalf("alive after the end: %v", got)
	}
	if got := beat(a, b); got[a] || !got[b] {
		t.Fatalf("a dead session beats: %v", got)
	}
	s.txn(t, func(tx protocol.Tx) error { // the dead stay dead
		return tx.OpenSession(s.ctx, protocol.OpenSessionRequest{Session: a, Worker: "w"})
	})
	if live := beats(); len(live) != 1 || live[b].Beat != 3 {
		t.Fatalf("live sessions %+v", live)
	}
	for _, at := range []struct {
		beat int64
		ends bool
	}{{2, false}, {3, true}} {
		var ended []protocol.ID
		s.txn(t, func(tx protocol.Tx) (err error) {
			ended, err = tx.EndSessions(s.ctx, []protocol.SessionEnd{{ID: b, Beat: at.beat, Reason: "lease"}})
			return err
		})
		if (len(ended) == 1) != at.ends {
			t.Fatalf("a session at beat 3, ended at beat %d: %v", at.beat, ended)
		}
	}
	err := s.Store.Txn(s.ctx, "test", func(tx protocol.Tx) error {
		if err := tx.OpenSession(s.ctx, protocol.OpenSessionRequest{Session: unknown, Worker: "w"}); err != nil {
			return err
		}
		if m, err := tx.Alive(s.ctx, []protocol.ID{unknown}); err != nil || s.Concurrent && !m[unknown] {
			t.Errorf("a transaction doesn't see its own session: %v, %v", m, err)
		}
		return errors.New("rolled back")
	})
	if err == nil || len(beats()) != 0 {
		t.Fatalf("a session of a transaction that failed lives: %v", beats())
	}
}

func owned(t *testing.T, s *suite) {
	a, b := s.session(t), s.session(t)
	ids := s.insert(t, 5)
	extra := s.NewID()
	s.Insert(t, Seed{ID: extra, Flow: ids[0], Version: 1, Shard: 1, Priority: "normal"})
	s.own(t, a, ids[0], ids[1], ids[2], extra)
	s.own(t, b, ids[3])
	shard := s.Row(t, ids[0]).Shard
	list := func(session protocol.ID, shard, limit int) (out []protocol.ID) {
		s.txn(t, func(tx protocol.Tx) (err error) { out, err = tx.Owned(s.ctx, session, shard, limit); return err })
		return out
	}
	same(t, "owned by a", list(a, shard, 100), ids[:3])
	same(t, "owned by a, shard 1", list(a, 1, 100), []protocol.ID{extra})
	same(t, "owned by b", list(b, shard, 100), ids[3:4])
	if got := list(a, shard, 2); len(got) != 2 {
		t.Fatalf("limit 2 gave %v", got)
	}
	for _, c := range []struct {
		id protocol.ID
		as protocol.State
	}{{ids[1], protocol.Cancelled}, {ids[3], protocol.TimedOut}} {
		s.change(t, c.id, func(r *protocol.Row, _ *protocol.Changes) { r.Cancel = c.as })
	}
	cancels := func(sessions ...protocol.ID) (m map[protocol.ID][]protocol.CancelOrder) {
		s.txn(t, func(tx protocol.Tx) (err error) { m, err = tx.Cancels(s.ctx, sessions); return err })
		return m
	}
	got := cancels(a, b)
	if len(got[a]) != 1 || got[a][0] != (protocol.CancelOrder{Execution: ids[1], As: protocol.Cancelled}) {
		t.Fatalf("cancels of a: %v", got[a])
	}
	if len(got[b]) != 1 || got[b][0] != (protocol.CancelOrder{Execution: ids[3], As: protocol.TimedOut}) {
		t.Fatalf("cancels of b: %v", got[b])
	}
	if got := cancels(b); len(got[a]) != 0 || len(got[b]) != 1 {
		t.Fatalf("cancels of b alone: %v", got)
	}
	s.change(t, ids[1], func(r *protocol.Row, _ *protocol.Changes) {
		r.State, r.Owner, r.Run, r.Cancel = protocol.Cancelled, protocol.ID{}, 0, ""
	})
	if got := cancels(a); len(got[a]) != 0 {
		t.Fatalf("cancels after the end: %v", got)
	}
	var runs map[protocol.ID][]protocol.Orphan
	s.txn(t, func(tx protocol.Tx) (err error) { runs, err = tx.Runs(s.ctx, []protocol.ID{a, b}); return err })
	if r := s.Row(t, ids[0]); len(runs[a]) != 3 || len(runs[b]) != 1 || runs[a][0] != (protocol.Orphan{Execution: r.ID, Attempt: r.Attempt, Run: r.Run, Seq: r.Seq, Shard: r.Shard}) {
		t.Fatalf("runs %+v", runs)
	}
	same(t, "owned after the end", list(a, shard, 100), []protocol.ID{ids[0], ids[2]})
}

func deadOwners(t *testing.T, s *suite) {
	a, b, c := s.session(t), s.session(t), s.session(t)
	ids := s.insert(t, 3)
	s.own(t, a, ids[0], ids[1])
	s.own(t, b, ids[2])
	list := func() []protocol.ID { return must[[]protocol.ID](t)(s.Store.DeadOwners(s.ctx, 10)) }
	same(t, "while all live", list(), nil)
	s.end(t, a, c)
	same(t, "a and c are dead, c owns nothing", list(), []protocol.ID{a})
	same(t, "asked again", list(), []protocol.ID{a})
	for i, id := range ids[:2] {
		s.change(t, id, func(r *protocol.Row, _ *protocol.Changes) {
			r.State, r.Owner, r.Run, r.Attempt = protocol.Queued, protocol.ID{}, 0, 2
		})
		if i == 0 {
			same(t, "half recovered", list(), []protocol.ID{a})
		}
	}
	same(t, "recovered", list(), nil)
}

func beatBeatsEnd(t *testing.T, s *suite) {
	if !s.Concurrent {
		t.Skip("needs concurrent transactions")
	}
	id := s.session(t)
	// A renewal holds the session while the judge, who saw beat 1, waits for it: the judge must find beat 2 and leave it alive.
	held, release, judged := make(chan struct{}), make(chan struct{}), make(chan []protocol.ID, 1)
	done := make(chan error, 2)
	go func() {
		done <- s.Store.Txn(s.ctx, "renew", func(tx protocol.Tx) error {
			_, err := tx.Beat(s.ctx, []protocol.ID{id})
			close(held)
			<-release
			return err
		})
	}()
	<-held
	started := make(chan struct{})
	go func() {
		done <- s.Store.Txn(s.ctx, "judge", func(tx protocol.Tx) error {
			close(started)
			ended, err := tx.EndSessions(s.ctx, []protocol.SessionEnd{{ID: id, Beat: 1, Reason: "lease"}})
			judged <- ended
			return err
		})
	}()
	<-started
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	same(t, "ended by the judge", <-judged, nil)
	if live := must[[]protocol.Session](t)(s.Store.LiveSessions(s.ctx)); len(live) != 1 || live[0].Beat != 2 {
		t.Fatalf("live sessions %+v", live)
	}
}

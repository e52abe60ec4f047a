package storetest

import (
	"encoding/json"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// remoteWait is a wait that makes a task with the heartbeat given.
func remoteWait(t *testing.T, id protocol.ID, node, queue string, beat time.Duration) (protocol.WaitEntry, protocol.ID) {
	t.Helper()
	task := protocol.RemoteTaskID(id, node, "", 1, 0)
	open, err := json.Marshal(protocol.RemoteOpen{Queue: queue, Try: 1, Heartbeat: beat.Milliseconds(), Input: json.RawMessage(`{"n":12345678901234567890}`)})
	if err != nil {
		t.Fatal(err)
	}
	return protocol.WaitEntry{Node: node, Kind: flow.WaitRemote, Key: task.String(), Reason: "waits for a remote worker", Open: open}, task
}

func (s *suite) poll(t *testing.T, queue, worker string, limit int) (out []protocol.RemoteTask) {
	t.Helper()
	s.txn(t, func(tx protocol.Tx) (err error) {
		out, err = protocol.PollRemote(s.ctx, tx, s.Project, queue, worker, limit)
		return err
	})
	return out
}

func (s *suite) beat(t *testing.T, id protocol.ID, lease int, progress string) (task protocol.RemoteTask, said protocol.RemoteVerdict) {
	t.Helper()
	s.txn(t, func(tx protocol.Tx) (err error) {
		task, said, err = protocol.BeatRemote(s.ctx, tx, id, lease, json.RawMessage(progress))
		return err
	})
	return task, said
}

func (s *suite) finish(t *testing.T, e protocol.RemoteEnd, want protocol.RemoteVerdict) (out protocol.Outcome) {
	t.Helper()
	var said protocol.RemoteVerdict
	s.txn(t, func(tx protocol.Tx) (err error) {
		out, _, said, err = protocol.EndRemote(s.ctx, tx, e)
		return err
	})
	if said != want {
		t.Fatalf("the end of %s is %q, want %q", e.Task, said, want)
	}
	return out
}

func (s *suite) pass() {
	if s.Pass != nil {
		s.Pass()
	}
}

// lapse waits until the leases of a millisecond are over by the store's clock, of which each poll is a look.
func (s *suite) lapse(t *testing.T, queue, worker string) protocol.RemoteTask {
	t.Helper()
	for s.ctx.Err() == nil {
		if got := s.poll(t, queue, worker, 1); len(got) > 0 {
			return got[0]
		}
		s.pass()
	}
	t.Fatal("the lease is never over")
	return protocol.RemoteTask{}
}

func remoteTasks(t *testing.T, s *suite) {
	ids := s.insert(t, 4)
	w, task := remoteWait(t, ids[0], "a", "mail", time.Hour)
	out := s.suspend(t, ids[0], w)
	told := 0
	for _, n := range out.News {
		if n.Queue == "mail" {
			told++
		}
	}
	if told != 1 {
		t.Fatalf("%d queues are told of one new task", told)
	}
	if got := s.poll(t, "other", "w", 10); len(got) != 0 {
		t.Fatalf("another queue gives %+v", got)
	}
	got := s.poll(t, "mail", "w", 10)
	if len(got) != 1 || got[0].ID != task || got[0].Lease != 1 || got[0].Node != "a" || got[0].Execution != ids[0] || string(got[0].Input) != `{"n":12345678901234567890}` || got[0].Heartbeat != time.Hour {
		t.Fatalf("polled %+v", got)
	}
	if again := s.poll(t, "mail", "w2", 10); len(again) != 0 {
		t.Fatalf("a leased task was given again: %+v", again)
	}
	if held, said := s.beat(t, task, 1, `{"done":3}`); said != protocol.SaidDone || string(held.Progress) != `{"done":3}` || held.Until.Before(got[0].Until) {
		t.Fatalf("heartbeat: %q %+v", said, held)
	}
	if _, said := s.beat(t, task, 2, `1`); said != protocol.SaidTaken {
		t.Fatalf("the heartbeat of a lease that is none: %q", said)
	}
	if _, said := s.beat(t, ids[3], 1, `1`); said != protocol.SaidUnknown {
		t.Fatalf("the heartbeat of no task: %q", said)
	}
	s.finish(t, protocol.RemoteEnd{Task: task, Lease: 2, Output: json.RawMessage(`1`)}, protocol.SaidTaken)
	s.finish(t, protocol.RemoteEnd{Task: ids[3], Lease: 1, Output: json.RawMessage(`1`)}, protocol.SaidUnknown)
	if out := s.finish(t, protocol.RemoteEnd{Task: task, Lease: 1, Output: json.RawMessage(`{"sent":true}`)}, protocol.SaidDone); len(out.HandOut) != 1 {
		t.Fatalf("the completion handed out %v", out.HandOut)
	}
	s.wants(t, ids[0], protocol.Queued, 2, `"sent":true`, task.String())
	s.finish(t, protocol.RemoteEnd{Task: task, Lease: 1, Output: json.RawMessage(`{"sent":true}`)}, protocol.SaidDone) // again
	s.finish(t, protocol.RemoteEnd{Task: task, Lease: 1, Output: json.RawMessage(`{"sent":false}`)}, protocol.SaidOver)
	s.finish(t, protocol.RemoteEnd{Task: task, Lease: 1, Error: &flow.Failure{Code: "x"}}, protocol.SaidOver)
	s.wants(t, ids[0], protocol.Queued, 2)
	if held, said := s.beat(t, task, 1, ""); said != protocol.SaidOver || held.Outcome != protocol.RemoteCompleted {
		t.Fatalf("the heartbeat of what has ended: %q %+v", said, held)
	}

	// A failure; and a task that is opened while its execution runs, and ends before it suspends.
	w, task = remoteWait(t, ids[1], "b", "mail", time.Hour)
	if _, err := s.apply(t, protocol.Entry{Kind: protocol.EntryStep, Execution: ids[1], Attempt: 1, Seq: 1, Waits: []protocol.WaitEntry{w}}); err != nil {
		t.Fatal(err)
	}
	s.poll(t, "mail", "w", 1)
	failed := protocol.RemoteEnd{Task: task, Lease: 1, Error: &flow.Failure{Code: "no-paper", Message: "out of paper", Retryable: true}}
	if out := s.finish(t, failed, protocol.SaidDone); len(out.HandOut) != 0 {
		t.Fatalf("an execution that runs was handed out: %v", out.HandOut)
	}
	s.finish(t, failed, protocol.SaidDone) // again, by whoever has no answer
	w.Open = nil
	if _, err := s.apply(t, protocol.Entry{Kind: protocol.EntrySuspend, Execution: ids[1], Attempt: 1, Seq: 2, Base: 1, Waits: []protocol.WaitEntry{w}}); err != nil {
		t.Fatal(err)
	}
	s.wants(t, ids[1], protocol.Queued, 2, `"no-paper"`, `"retryable":true`)

	// With its execution's end it is cancelled.
	w, task = remoteWait(t, ids[2], "c", "mail", time.Hour)
	s.suspend(t, ids[2], w)
	s.poll(t, "mail", "w", 1)
	s.txn(t, func(tx protocol.Tx) error {
		_, err := protocol.Cancel(s.ctx, tx, []protocol.ID{ids[2]}, protocol.Cancelled)
		return err
	})
	if held, said := s.beat(t, task, 1, ""); said != protocol.SaidOver || held.Outcome != protocol.RemoteCancelled {
		t.Fatalf("the heartbeat of what is cancelled: %q %+v", said, held)
	}
	s.finish(t, protocol.RemoteEnd{Task: task, Lease: 1, Output: json.RawMessage(`1`)}, protocol.SaidOver)
	s.wants(t, ids[2], protocol.Cancelled, 1)

	// With the node's time too, and the step fails.
	w, task = remoteWait(t, ids[3], "d", "mail", time.Hour)
	w.Due = time.Unix(0, 0)
	s.suspend(t, ids[3], w)
	s.wants(t, ids[3], protocol.Queued, 2, `"timeout"`)
	if got := s.poll(t, "mail", "w", 1); len(got) != 0 {
		t.Fatalf("an expired task is given out: %+v", got)
	}
	s.finish(t, protocol.RemoteEnd{Task: task, Lease: 0, Output: json.RawMessage(`1`)}, protocol.SaidTaken)
}

func remoteLeases(t *testing.T, s *suite) {
	first := s.NewID()
	s.Insert(t, Seed{ID: first, Flow: s.NewID(), Version: 1, Priority: "low"})
	second := s.NewID()
	s.Insert(t, Seed{ID: second, Flow: s.NewID(), Version: 1, Priority: "high"})
	w1, task1 := remoteWait(t, first, "a", "q", time.Millisecond)
	w2, task2 := remoteWait(t, second, "a", "q", time.Hour)
	s.suspend(t, first, w1)
	s.suspend(t, second, w2)
	if got := s.poll(t, "q", "w", 1); len(got) != 1 || got[0].ID != task2 {
		t.Fatalf("polled %+v, want the task of high priority, %s", got, task2)
	}
	if got := s.poll(t, "q", "w1", 1); len(got) != 1 || got[0].ID != task1 || got[0].Lease != 1 {
		t.Fatalf("polled %+v, want %s", got, task1)
	}
	for lease := 2; lease <= protocol.MaxDeliveries; lease++ { // nobody gives a sign of life
		if got := s.lapse(t, "q", "w2"); got.ID != task1 || got.Lease != lease || got.Worker != "w2" {
			t.Fatalf("polled %+v, want lease %d", got, lease)
		}
	}
	s.finish(t, protocol.RemoteEnd{Task: task1, Lease: 1, Output: json.RawMessage(`1`)}, protocol.SaidTaken) // the first worker, back from a pause
	lost := must[[]protocol.ID](t)
	for len(lost(s.Store.LostRemote(s.ctx, 10))) == 0 { // its last lease lives for a millisecond
		s.pass()
	}
	if got := s.poll(t, "q", "w", 10); len(got) != 0 {
		t.Fatalf("a lost task is given out: %+v", got)
	}
	for _, id := range []protocol.ID{task1, task2} { // the second isn't lost
		s.txn(t, func(tx protocol.Tx) error {
			_, err := protocol.LoseRemote(s.ctx, tx, id)
			return err
		})
	}
	s.wants(t, first, protocol.Queued, 2, `"remote-lost"`)
	s.wants(t, second, protocol.Waiting, 1)
	if ids := lost(s.Store.LostRemote(s.ctx, 10)); len(ids) != 0 {
		t.Fatalf("still lost: %v", ids)
	}
	s.finish(t, protocol.RemoteEnd{Task: task1, Lease: protocol.MaxDeliveries, Output: json.RawMessage(`1`)}, protocol.SaidOver)
}

package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// suspend lets a queued execution suspend with waits, as a collector does it.
func (s *suite) suspend(t *testing.T, id protocol.ID, waits ...protocol.WaitEntry) protocol.Outcome {
	t.Helper()
	out, err := s.apply(t, protocol.Entry{Kind: protocol.EntrySuspend, Execution: id, Attempt: s.Row(t, id).Attempt, Seq: 1, Waits: waits})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *suite) apply(t *testing.T, e protocol.Entry) (out protocol.Outcome, err error) {
	err = s.Store.Txn(s.ctx, "collect", func(tx protocol.Tx) (err error) {
		out, err = protocol.ApplyReports(s.ctx, tx, s.Row(t, e.Execution).Shard, []protocol.Entry{e}, false)
		return err
	})
	return out, err
}

func (s *suite) send(t *testing.T, mail ...protocol.Letter) []protocol.Delivery {
	t.Helper()
	_, d, err := protocol.Send(s.ctx, s.Store, mail)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func signalWait(node, name, key string) protocol.WaitEntry {
	return protocol.WaitEntry{Node: node, Kind: flow.WaitSignal, Key: protocol.SignalKey(name, key), Reason: "waits for the signal " + name}
}

func (s *suite) letter(to protocol.ID, key, output string) protocol.Letter {
	return protocol.Letter{ID: s.NewID(), Project: s.Project, Execution: to, Kind: flow.WaitSignal, Key: key, Output: json.RawMessage(output)}
}

// wants checks an execution's state, attempt and what its newest report says.
func (s *suite) wants(t *testing.T, id protocol.ID, state protocol.State, attempt int, said ...string) {
	t.Helper()
	r := s.Row(t, id)
	if r.State != state || r.Attempt != attempt {
		t.Fatalf("%s in attempt %d, want %s in %d", r.State, r.Attempt, state, attempt)
	}
	var all string
	for _, rep := range s.Reports(t, id) {
		all += string(rep.Events)
	}
	for _, want := range said {
		if !strings.Contains(all, want) {
			t.Fatalf("the reports %s don't say %s", all, want)
		}
	}
}

func expect(t *testing.T, d protocol.Delivery, status protocol.Delivered, to protocol.ID, reason string) {
	t.Helper()
	if d.Status != status || d.Execution != to || d.Reason != reason {
		t.Fatalf("%+v, want %s to %s, reason %q", d, status, to, reason)
	}
}

func lettersTo(t *testing.T, s *suite) {
	ids := s.insert(t, 4)
	// To one that waits.
	s.suspend(t, ids[0], signalWait("a", "paid", "order-1"), signalWait("b", "shipped", ""))
	l := s.letter(ids[0], "paid", `{"sum":12345678901234567890}`)
	expect(t, s.send(t, l)[0], protocol.LetterTaken, ids[0], "")
	s.wants(t, ids[0], protocol.Queued, 2, `"n":"a"`, `12345678901234567890`, l.ID.String())
	expect(t, s.send(t, l)[0], protocol.LetterTaken, ids[0], "") // again
	s.wants(t, ids[0], protocol.Queued, 2)
	other := l
	other.Output = json.RawMessage(`1`)
	expect(t, s.send(t, other)[0], protocol.LetterRefused, protocol.ID{}, protocol.RefusedConflict)
	open := 0
	for _, w := range s.Waits(t, ids[0]) {
		if w.Met.IsZero() {
			open++
		}
	}
	if open != 1 {
		t.Fatalf("%d waits are open, want that of b", open)
	}
	// One that came first: taken by the suspend, exactly once.
	expect(t, s.send(t, s.letter(ids[1], "paid", `1`), s.letter(ids[1], "paid", `2`))[0], protocol.LetterKept, ids[1], "")
	if out := s.suspend(t, ids[1], signalWait("a", "paid", "")); len(out.HandOut) != 1 {
		t.Fatalf("the suspend handed out %v", out.HandOut)
	}
	s.wants(t, ids[1], protocol.Queued, 2, `"o":1`)
	s.suspend(t, ids[1], signalWait("b", "paid", ""))
	s.wants(t, ids[1], protocol.Queued, 3, `"o":2`)
	s.suspend(t, ids[1], signalWait("c", "paid", ""))
	s.wants(t, ids[1], protocol.Waiting, 3)
	// What is refused.
	once := s.letter(ids[2], "n", `true`)
	once.Kind, once.Once = flow.WaitApproval, true
	expect(t, s.send(t, once)[0], protocol.LetterRefused, ids[2], protocol.RefusedNoWait)
	s.change(t, ids[2], func(_ *protocol.Row, c *protocol.Changes) { // open while it runs
		c.Opened = []protocol.OpenWait{{Execution: ids[2], Node: "n", Kind: flow.WaitApproval, Key: "n", Since: time.Now()}}
	})
	second := once
	second.ID = s.NewID()
	d := s.send(t, once, second)
	expect(t, d[0], protocol.LetterKept, ids[2], "")
	expect(t, d[1], protocol.LetterRefused, ids[2], protocol.RefusedDecided)
	second.ID = s.NewID()
	expect(t, s.send(t, second)[0], protocol.LetterRefused, ids[2], protocol.RefusedDecided)
	s.suspend(t, ids[2], protocol.WaitEntry{Node: "n", Kind: flow.WaitApproval, Key: "n"})
	s.wants(t, ids[2], protocol.Queued, 2, once.ID.String())
	nobody := s.NewID()
	expect(t, s.send(t, s.letter(nobody, "paid", `1`))[0], protocol.LetterRefused, nobody, protocol.RefusedUnknown)
	s.change(t, ids[3], func(r *protocol.Row, _ *protocol.Changes) { r.State = protocol.Cancelled })
	expect(t, s.send(t, s.letter(ids[3], "paid", `1`))[0], protocol.LetterRefused, ids[3], protocol.RefusedEnded)
	full := make([]protocol.Letter, protocol.MaxKept)
	for i := range full {
		full[i] = s.letter(ids[1], "never", `0`)
	}
	s.send(t, full...)
	expect(t, s.send(t, s.letter(ids[1], "never", `0`))[0], protocol.LetterRefused, ids[1], protocol.RefusedFull)
}

func lettersByKey(t *testing.T, s *suite) {
	ids := s.insert(t, 4)
	for _, id := range ids[:2] {
		s.suspend(t, id, signalWait("a", "paid", "k"))
	}
	expect(t, s.send(t, s.letter(protocol.ID{}, "paid/other", `0`))[0], protocol.LetterKept, protocol.ID{}, "")
	d := s.send(t, s.letter(protocol.ID{}, "paid/k", `1`), s.letter(protocol.ID{}, "paid/k", `2`))
	if d[0].Status != protocol.LetterTaken || d[1].Status != protocol.LetterTaken || d[0].Execution == d[1].Execution {
		t.Fatalf("two letters, two that wait: %+v", d)
	}
	s.wants(t, ids[0], protocol.Queued, 2)
	s.wants(t, ids[1], protocol.Queued, 2)
	kept := s.letter(protocol.ID{}, "paid/k", `3`)
	expect(t, s.send(t, kept)[0], protocol.LetterKept, protocol.ID{}, "")
	s.suspend(t, ids[2], signalWait("a", "paid", "k"))
	s.wants(t, ids[2], protocol.Queued, 2, `"o":3`, kept.ID.String())
	expect(t, s.send(t, kept)[0], protocol.LetterTaken, ids[2], "")
	s.suspend(t, ids[3], signalWait("a", "paid", "k"))
	s.wants(t, ids[3], protocol.Waiting, 1)
}

// lettersRace: whoever comes first, the sender or the one who begins to wait, they find each other.
func lettersRace(t *testing.T, s *suite) {
	if !s.Concurrent {
		t.Skip("no goroutines here: the simulator has schedules of its own for this")
	}
	const rounds = 25
	ids := s.insert(t, rounds)
	for i, id := range ids {
		var both sync.WaitGroup
		both.Go(func() {
			e := protocol.Entry{Kind: protocol.EntrySuspend, Execution: id, Attempt: 1, Seq: 1, Waits: []protocol.WaitEntry{signalWait("a", "race", fmt.Sprint(i))}}
			if _, err := s.apply(t, e); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			if _, _, err := protocol.Send(s.ctx, s.Store, []protocol.Letter{s.letter(protocol.ID{}, fmt.Sprintf("race/%d", i), `1`)}); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		s.wants(t, id, protocol.Queued, 2)
	}
}

func childrenEnd(t *testing.T, s *suite) {
	ids := s.insert(t, 3)
	parent, child, late := ids[0], ids[1], ids[2]
	s.Call(t, parent, child)
	s.Call(t, parent, late)
	if !s.Row(t, parent).Calls || s.Row(t, child).Parent != parent {
		t.Fatalf("the fixture called nothing: %+v, %+v", s.Row(t, parent), s.Row(t, child))
	}
	wait := func(id protocol.ID) protocol.WaitEntry {
		return protocol.WaitEntry{Node: "call", Kind: flow.WaitChildren, Key: id.String()}
	}
	s.suspend(t, parent, wait(child))
	out, err := s.apply(t, protocol.Entry{Kind: protocol.EntryFinal, Execution: child, Attempt: 1, Seq: 1, State: protocol.Succeeded, Output: json.RawMessage(`{"n":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "mail", out.Mail, []protocol.ID{parent})
	s.wants(t, parent, protocol.Waiting, 1) // the follow-up is lost
	same(t, "young", must[[]protocol.ID](t)(s.Store.Mail(s.ctx, time.Hour, 10)), nil)
	rec := protocol.Reconciler{Store: s.Store, Publisher: nobody{}}
	if _, found, err := rec.Mail(s.ctx, 0); err != nil || found != 1 {
		t.Fatalf("the sweep found %d, %v", found, err)
	}
	s.wants(t, parent, protocol.Queued, 2, `"n":"call"`, `"o":{"n":1}`)
	same(t, "nothing is left", must[[]protocol.ID](t)(s.Store.Mail(s.ctx, 0, 10)), nil)
	// The end goes down, to the one that still runs.
	s.txn(t, func(tx protocol.Tx) error {
		out, err = protocol.Cancel(s.ctx, tx, []protocol.ID{parent}, protocol.Cancelled)
		return err
	})
	same(t, "mail to itself", out.Mail, []protocol.ID{parent})
	if _, found, err := rec.Mail(s.ctx, 0); err != nil || found != 1 {
		t.Fatalf("the sweep found %d, %v", found, err)
	}
	s.wants(t, late, protocol.Cancelled, 1)
	s.wants(t, child, protocol.Succeeded, 1)
	s.wants(t, parent, protocol.Cancelled, 2)
}

// childFailed: a child that is ended by the platform fails the call.
func childFailed(t *testing.T, s *suite) {
	ids := s.insert(t, 2)
	s.Call(t, ids[0], ids[1])
	s.txn(t, func(tx protocol.Tx) error {
		_, err := protocol.Cancel(s.ctx, tx, ids[1:], protocol.TimedOut)
		return err
	})
	s.txn(t, func(tx protocol.Tx) error { _, err := protocol.Post(s.ctx, tx, ids); return err })
	s.wants(t, ids[0], protocol.Queued, 1) // not waiting yet: the suspend looks
	s.suspend(t, ids[0], protocol.WaitEntry{Node: "call", Kind: flow.WaitChildren, Key: ids[1].String()})
	s.wants(t, ids[0], protocol.Queued, 2, "child-failed", "timed_out", `"deadline"`)
}

// nobody publishes nothing.
type nobody struct{}

func (nobody) PublishTasks(_ context.Context, tasks []protocol.Task) []bool {
	return make([]bool, len(tasks))
}

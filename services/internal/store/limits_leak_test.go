package store

import (
	"fmt"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

// holder is an execution that holds the only slot of its key, with another one that waits behind it.
type holder struct {
	*bundle
	id, next protocol.ID
	key      string
	freed    []string // keys that ends have named
}

// leaks counts slots that nobody will free: of executions that have ended, or are not there.
const leaks = `SELECT count(*) FROM slots s LEFT JOIN executions e ON e.id = s.execution_id WHERE s.state <> 'free' AND (e.id IS NULL OR e.state IN ('succeeded', 'failed', 'cancelled', 'timed_out'))`

func (h *holder) txn(t *testing.T, do func(protocol.Tx) (protocol.Outcome, error)) {
	t.Helper()
	err := h.db.Txn(t.Context(), "test", func(tx protocol.Tx) error {
		out, err := do(tx)
		h.freed = append(h.freed, out.Freed...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// claimed opens a session and lets it claim the execution's attempt.
func (h *holder) claimed(t *testing.T) (session protocol.ID) {
	t.Helper()
	session = NewID()
	x, err := h.db.ExecutionByID(t.Context(), h.id)
	if err != nil {
		t.Fatal(err)
	}
	h.txn(t, func(tx protocol.Tx) (out protocol.Outcome, err error) {
		if _, _, err = protocol.OpenSession(t.Context(), tx, protocol.OpenSessionRequest{Session: session, Worker: "w"}); err != nil {
			return out, err
		}
		answers, err := protocol.GrantClaims(t.Context(), tx, []protocol.Claim{{Session: session, Execution: h.id, Attempt: x.Attempt, Run: 1}})
		if err == nil && answers[0] != protocol.Granted {
			err = fmt.Errorf("the claim of attempt %d is %v", x.Attempt, answers[0])
		}
		return out, err
	})
	return session
}

// dies ends a session and takes back what it owned.
func (h *holder) dies(t *testing.T, session protocol.ID) {
	t.Helper()
	h.txn(t, func(tx protocol.Tx) (out protocol.Outcome, err error) {
		_, err = protocol.EndSessions(t.Context(), tx, []protocol.ID{session}, "test")
		return out, err
	})
	h.txn(t, func(tx protocol.Tx) (protocol.Outcome, error) {
		return protocol.ApplyReports(t.Context(), tx, 0, []protocol.Entry{{Kind: protocol.EntryRecover, Session: session}}, false)
	})
}

func (h *holder) cancels(t *testing.T, id protocol.ID, as protocol.State) {
	t.Helper()
	h.txn(t, func(tx protocol.Tx) (protocol.Outcome, error) {
		return protocol.Cancel(t.Context(), tx, []protocol.ID{id}, as)
	})
}

// reports sends what its worker says at last.
func (h *holder) reports(t *testing.T, session protocol.ID, state protocol.State) {
	t.Helper()
	h.txn(t, func(tx protocol.Tx) (protocol.Outcome, error) {
		return protocol.ApplyReports(t.Context(), tx, 0, []protocol.Entry{{Kind: protocol.EntryFinal, Execution: h.id, Session: session, Run: 1, Attempt: 1, Seq: 1, State: state}}, false)
	})
}

// late moves a deadline into the past and lets the leader look.
func (h *holder) late(t *testing.T) {
	t.Helper()
	h.sql(t, `UPDATE executions SET deadline = now() - interval '1 second' WHERE id = '`+h.id.String()+`'`)
	out, err := (&protocol.Reconciler{Store: h.db, Publisher: &published{}}).Overdue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.freed = append(h.freed, out.Freed...)
}

// still says that it holds its slot, and nobody has been let in beside it.
func (h *holder) still(t *testing.T, when string) {
	t.Helper()
	if n, err := (&protocol.Admitter{Store: h.db, Publisher: &published{}}).Admit(t.Context(), []string{h.key}); n != 0 || err != nil {
		t.Errorf("%s: %d were let in, %v", when, n, err)
	}
	if got := h.slots(t); got != "1 held 1 waiting" {
		t.Errorf("%s: %s", when, got)
	}
}

// TestSlotsDontLeak: however an execution that holds a slot comes to its end, its slot is free in the transaction that ends it, not before, and the next is let in.
func TestSlotsDontLeak(t *testing.T) {
	t.Parallel()
	server := setup(t).server
	for name, tc := range map[string]struct {
		end   func(*testing.T, *holder)
		state protocol.State
	}{
		"past its deadline, queued": {func(t *testing.T, h *holder) { h.late(t) }, protocol.TimedOut},
		"past its deadline, its worker lets go": {func(t *testing.T, h *holder) {
			session := h.claimed(t)
			h.late(t)
			h.still(t, "it is told")
			h.reports(t, session, protocol.TimedOut)
		}, protocol.TimedOut},
		"past its deadline, its worker dead": {func(t *testing.T, h *holder) {
			session := h.claimed(t)
			h.late(t)
			h.still(t, "its worker is told")
			h.dies(t, session)
		}, protocol.TimedOut},
		"cancelled, its worker dead before": {func(t *testing.T, h *holder) {
			session := h.claimed(t)
			h.dies(t, session)
			h.still(t, "it is taken back")
			h.cancels(t, h.id, protocol.Cancelled)
		}, protocol.Cancelled},
		"cancelled, its worker dead after": {func(t *testing.T, h *holder) {
			session := h.claimed(t)
			h.cancels(t, h.id, protocol.Cancelled)
			h.still(t, "its worker is told")
			h.dies(t, session)
		}, protocol.Cancelled},
		"poison": {func(t *testing.T, h *holder) {
			for death := 1; death <= protocol.PoisonDeaths; death++ {
				h.dies(t, h.claimed(t))
				if death < protocol.PoisonDeaths {
					h.still(t, fmt.Sprintf("after death %d", death))
				}
			}
		}, protocol.Failed},
		"poison that was requeued and died again": {func(t *testing.T, h *holder) {
			for range protocol.PoisonDeaths {
				h.dies(t, h.claimed(t))
			}
			h.txn(t, func(tx protocol.Tx) (out protocol.Outcome, err error) { // before the next is let in: its place is still free, and it goes first
				out, _, err = protocol.Retry(t.Context(), tx, []protocol.ID{h.id})
				return out, err
			})
			if _, err := (&protocol.Admitter{Store: h.db, Publisher: &published{}}).Admit(t.Context(), []string{h.key}); err != nil {
				t.Fatal(err)
			}
			h.still(t, "one of the two is let in")
			if h.hold(t, h.id) == "queued " {
				h.cancels(t, h.id, protocol.Cancelled)
			} else { // the other was first
				h.cancels(t, h.next, protocol.Cancelled)
				h.id, h.next = h.next, h.id
			}
		}, protocol.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &holder{bundle: setupOn(t, server), key: "concurrency/k"}
			rows := []NewExecution{limitedRow(concurrency("k", 1, "")), limitedRow(concurrency("k", 1, ""))}
			h.id, h.next = rows[0].ID, rows[1].ID
			h.insertLimited(t, rows...)
			h.still(t, "at first")
			tc.end(t, h)
			if got := h.hold(t, h.id); got != string(tc.state)+" " {
				t.Errorf("it is %q, not %s", got, tc.state)
			}
			if n := h.sql(t, leaks); n != "0" {
				t.Errorf("%s slots have leaked", n)
			}
			if len(h.freed) == 0 {
				t.Error("its end names no key that has room: the next would wait for the leader's look")
			}
			if n, err := (&protocol.Admitter{Store: h.db, Publisher: &published{}}).Admit(t.Context(), h.freed); n != 1 || err != nil || h.hold(t, h.next) != "queued " {
				t.Errorf("%d were let in, %v; the next is %q", n, err, h.hold(t, h.next))
			}
			h.deleted(t)
		})
	}
}

// deleted: retention takes the rows of those that have ended with their slots, and leaves those of the others, which then end as ever.
func (h *holder) deleted(t *testing.T) {
	t.Helper()
	all := Ended{From: protocol.ID{}, To: FirstID(time.Now().Add(time.Hour)), EndedLast: -time.Minute}
	if n, _, err := h.db.DeleteEnded(t.Context(), all); n != 1 || err != nil {
		t.Fatalf("%d deleted, %v", n, err)
	}
	if got := h.sql(t, `SELECT count(*) || ' ' || count(*) FILTER (WHERE state = 'held') FROM slots`); got != "1 1" {
		t.Errorf("slots in all and held: %s, want those of the next alone", got)
	}
	third := limitedRow(concurrency("k", 1, ""))
	h.insertLimited(t, third)
	if third.Hold != "concurrency" && h.hold(t, third.ID) != "queued concurrency" {
		t.Errorf("one more is %q beside the one that holds", h.hold(t, third.ID))
	}
	h.cancels(t, h.next, protocol.Cancelled)
	if n, err := (&protocol.Admitter{Store: h.db, Publisher: &published{}}).Admit(t.Context(), []string{h.key}); n != 1 || err != nil {
		t.Errorf("%d were let in after the deletion, %v", n, err)
	}
	if n := h.sql(t, leaks); n != "0" {
		t.Errorf("%s slots have leaked", n)
	}
}

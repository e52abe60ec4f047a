package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// TestWhy asks at every stage of an execution's life.
func TestWhy(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	x := b.run(t, b.flow(t, "why"), `{"input":{"n":1}}`)
	id, err := protocol.ParseID(x.ID)
	if err != nil {
		t.Fatal(err)
	}
	why := func() (codes string) {
		var w struct {
			Reasons []struct{ Code, Message string }
			Waits   []struct{ Node string }
			Worker  *struct{ Worker string }
		}
		b.do(t, "GET", "/executions/"+x.ID+"/why", b.admin, nil).want(t, 200).into(t, &w)
		for _, r := range w.Reasons {
			codes += r.Code + " "
		}
		for _, wait := range w.Waits {
			codes += "on " + wait.Node + " "
		}
		if w.Worker != nil {
			codes += "by " + w.Worker.Worker
		}
		return strings.TrimSpace(codes)
	}
	is := func(want string) {
		t.Helper()
		if got := why(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	txn := func(fn func(ctx context.Context, tx protocol.Tx) error) {
		t.Helper()
		if err := b.owner.Txn(t.Context(), "test", func(tx protocol.Tx) error { return fn(t.Context(), tx) }); err != nil {
			t.Fatal(err)
		}
	}
	sql := func(q string) {
		t.Helper()
		if _, err := b.postgres.Exec(b.database, fmt.Sprintf(q, x.ID)); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, 10*time.Second, "its task is marked", func() error {
		if got := why(); got != "in-queue no-worker not-seen" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	sql(`UPDATE executions SET hold = 'rate' WHERE id = '%s'`)
	is("held")
	sql(`UPDATE executions SET paused = 'by ada' WHERE id = '%s'`)
	is("held paused")
	sql(`UPDATE executions SET hold = '' WHERE id = '%s'`)
	is("paused")
	sql(`UPDATE executions SET paused = '', handed = 0 WHERE id = '%s'`)
	is("not-handed no-worker not-seen")
	session := store.NewID()
	txn(func(ctx context.Context, tx protocol.Tx) error {
		return tx.OpenSession(ctx, protocol.OpenSessionRequest{Session: session, Worker: "worker-1", Pool: "default", Slots: 1, Weight: 1})
	})
	is("not-handed not-seen")
	txn(func(ctx context.Context, tx protocol.Tx) error {
		answers, err := protocol.GrantClaims(ctx, tx, []protocol.Claim{{Session: session, Execution: id, Attempt: 1, Run: 7}})
		if err == nil && answers[0] != protocol.Granted {
			return fmt.Errorf("%v", answers)
		}
		return err
	})
	is("running by worker-1")
	b.do(t, "POST", "/executions/"+x.ID+"/cancel", b.admin, nil).want(t, 202)
	is("cancelling running by worker-1")
	sql(`UPDATE executions SET cancel = '', deaths = 2 WHERE id = '%s'`)
	is("running suspect by worker-1")
	sql(`UPDATE sessions SET alive = false WHERE '%s' <> ''`)
	is("worker-dead suspect by worker-1")
	b.apply(t, protocol.Entry{Kind: protocol.EntrySuspend, Execution: id, Session: session, Run: 7, Seq: 1, Waits: []protocol.WaitEntry{{Node: "pause", Kind: "timer", Reason: "waits until later", Due: time.Now().Add(time.Hour)}}})
	is("waiting suspect on pause")
	b.do(t, "POST", "/executions/"+x.ID+"/cancel", b.admin, nil).want(t, 200)
	is("ended")
}

// TestWhyOfAPool: a queued execution says how long its queue is, who works on it, and what the autoscaler thinks and did last.
func TestWhyOfAPool(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	c := readContract(t, b)
	x := b.run(t, b.flow(t, "why"), `{"input": {"n": 1}, "priority": "high"}`)
	var why struct {
		Reasons []struct{ Code, Message string }
		Pool    *struct {
			Pool, Priority, Code, Reason                     string
			Queued, Backlog, Workers, Slots, Wanted, Desired int
			Decision                                         *struct{ Reason string }
		}
	}
	ask := func() (codes, text string) {
		t.Helper()
		why.Reasons, why.Pool = nil, nil
		c.call(t, "whyExecution", 200, b.admin, nil, x.ID).into(t, &why)
		for _, r := range why.Reasons {
			codes, text = codes+r.Code+" ", text+r.Message+"\n"
		}
		return codes, text
	}
	testkit.Eventually(t, 10*time.Second, "its task is marked, and nobody leads", func() error {
		if codes, _ := ask(); codes != "in-queue no-worker not-seen " || why.Pool != nil {
			return fmt.Errorf("%s %+v", codes, why.Pool)
		}
		return nil
	})
	b.leads(t)
	codes, text := ask()
	if p := why.Pool; codes != "in-queue queue scaling " || p == nil || p.Pool != "default" || p.Priority != "high" || p.Queued != 7 || p.Backlog != 9 || p.Wanted != 4 || p.Desired != 2 || p.Code != "deployment" || p.Decision == nil || p.Decision.Reason != "a burst" {
		t.Fatalf("%s %+v", codes, p)
	}
	for _, want := range []string{"7 tasks are in the queue", "9 of the pool wait", "4 workers are wanted, 2 shall be (deployment: waits)", "The last change, at ", "a burst"} {
		if !strings.Contains(text, want) {
			t.Errorf("it doesn't say %q:\n%s", want, text)
		}
	}
	b.do(t, "POST", "/executions/"+x.ID+"/cancel", b.admin, nil).want(t, 200)
	if ask(); why.Pool != nil {
		t.Errorf("what has ended waits for no pool: %+v", why.Pool)
	}
}

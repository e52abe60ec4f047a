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
		if got := why(); got != "in-queue no-worker" {
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
	is("not-handed no-worker")
	session := store.NewID()
	txn(func(ctx context.Context, tx protocol.Tx) error {
		return tx.OpenSession(ctx, protocol.OpenSessionRequest{Session: session, Worker: "worker-1", Pool: "default", Slots: 1, Weight: 1})
	})
	is("not-handed")
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

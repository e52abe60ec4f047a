package store

import (
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

// What calls, schedules and replays start waits for its limits as well, rates too.
func TestDeferredLimits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertLimited(t, limitedRow(concurrency("a", 1, "")))
	rate := protocol.Limit{Kind: protocol.HoldRate, Key: "rate/a", Value: "a", Most: 1, Per: time.Hour}
	rows := []NewExecution{limitedRow(concurrency("a", 1, "reject")), limitedRow(rate, concurrency("b", 1, "")), limitedRow(rate)}
	var keys []string
	if err := b.db.txn(t.Context(), "call", func(x *tx) (err error) {
		list := []*NewExecution{&rows[0], &rows[1], &rows[2]}
		if keys, err = x.deferLimits(t.Context(), list); err != nil {
			return err
		}
		for _, e := range list {
			if err := x.insert(t.Context(), e); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var p published
	admitter := protocol.Admitter{Store: b.db, Publisher: &p}
	if n, err := admitter.Admit(t.Context(), keys); n != 0 || err != nil {
		t.Fatalf("%d let in beside the one that holds the key, %v", n, err)
	}
	if n, _, err := admitter.Due(t.Context(), time.Second, 10); n != 2 || err != nil {
		t.Fatalf("released: %d, %v", n, err)
	}
	for i, want := range []string{"queued concurrency", "queued ", "queued rate"} {
		if got := b.hold(t, rows[i].ID); got != want {
			t.Errorf("%d is %q, want %q", i, got, want)
		}
	}
	if n := b.sql(t, `SELECT count(*) FROM debounces`); n != "0" {
		t.Errorf("%s debounces are left", n)
	}
}

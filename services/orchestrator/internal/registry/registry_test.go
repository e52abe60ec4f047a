package registry

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

func TestRegistry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func() time.Time { return now })
	begun := now
	hear := func(worker string, after time.Duration, ended uint64) {
		r.Hear(protocol.Heartbeat{Worker: worker, At: begun.Add(after), Ended: ended})
	}
	hear("a", 0, 100)
	hear("b", 0, 0)
	now = now.Add(10 * time.Second)
	hear("a", 10*time.Second, 150)
	hear("a", 5*time.Second, 120) // late: of before
	got := r.Workers(time.Minute)
	if len(got) != 2 || got[0].Worker != "a" || got[0].Ended != 150 || !got[0].Fresh(now) || got[0].Fresh(now.Add(36*time.Second)) {
		t.Fatalf("%+v", got)
	}
	now = now.Add(55 * time.Second)
	if got = r.Workers(time.Minute); len(got) != 1 || got[0].Worker != "a" {
		t.Fatalf("after a minute of silence: %+v", got)
	}
	hear("a", 65*time.Second, 3) // it began anew
	if got = r.Workers(time.Minute); got[0].Ended != 3 {
		t.Fatalf("%+v", got)
	}
}

package app

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

// An answer means committed: when COMMIT never arrives there is none, and nothing has happened; when its answer is lost there is none either, and
// asking again gives the same answer as if it had come.
func TestNoAnswerWithoutACommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	proxy := testkit.NewCutProxy(t, fmt.Sprintf("127.0.0.1:%d", w.pg.Port))
	w.pgURL = strings.Replace(w.pgURL, fmt.Sprintf("127.0.0.1:%d", w.pg.Port), proxy.Address(), 1)
	a := w.orchestrator(t, "a")
	h := w.hand(t, base(a)...)
	id := w.insert(t, 1)[0]

	var cut atomic.Int64 // how many more COMMITs are cut
	once := func(what []byte) func([]byte) bool {
		return func(b []byte) bool { return !bytes.Contains(b, what) || cut.Add(-1) < 0 }
	}
	beat := func() string { return w.sql(t, fmt.Sprintf("SELECT beat FROM sessions WHERE id = '%s'", h.session)) }
	owner := func() string { return w.sql(t, fmt.Sprintf("SELECT owner FROM executions WHERE id = '%s'", id)) }
	claim := protocol.ClaimsRequest{Claims: []protocol.Claim{{Session: h.session, Execution: id, Attempt: 1, Run: 7}}}
	renew := protocol.RenewRequest{Session: h.session}
	unanswered := func(path string, q any) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, path+" meets the cut", func() error {
			var answer map[string]any
			if err := call(t.Context(), base(a)[0], path, q, &answer); err != nil {
				if !strings.HasPrefix(err.Error(), "503") {
					t.Errorf("%s: %v", path, err)
				}
				return nil
			}
			return fmt.Errorf("answered %v", answer)
		})
	}

	proxy.OnClient(once([]byte("COMMIT\x00")))
	cut.Store(1)
	unanswered("claims", claim)
	if got := owner(); got != "" {
		t.Errorf("owned by %s though COMMIT never arrived", got)
	}
	cut.Store(1)
	unanswered("sessions/renew", renew)
	if got := beat(); got != "1" {
		t.Errorf("beat %s though COMMIT never arrived", got)
	}
	proxy.OnClient(func([]byte) bool { return true })

	proxy.OnServer(once([]byte("COMMIT\x00")))
	cut.Store(1)
	unanswered("claims", claim)
	if got := owner(); got != h.session.String() {
		t.Errorf("owned by %q though COMMIT arrived", got)
	}
	cut.Store(1)
	unanswered("sessions/renew", renew)
	if got := beat(); got != "2" {
		t.Errorf("beat %s though COMMIT arrived once", got)
	}
	proxy.OnServer(func([]byte) bool { return true })

	if got := h.claim(t.Context(), claim.Claims...); got[0] != protocol.Granted {
		t.Errorf("asked again: %v", got)
	}
	if got := h.renew(t.Context()); !got.Alive {
		t.Error("not alive")
	}
}

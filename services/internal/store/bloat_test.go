package store

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

// TestPG12_StepsStayInTheirPages: what is written most, the row of a running execution at each of its steps, changes no indexed column and finds room in its own
// page (HOT): it leaves no dead entry in any index, and its dead versions go at the next visit, without vacuum.
func TestPG12_StepsStayInTheirPages(t *testing.T) {
	t.Parallel()
	b := setupOn(t, testkit.NewPostgres(t, false))
	ids := b.insert(t, 200)
	write := func(change func(*protocol.Row)) {
		t.Helper()
		err := b.db.Txn(t.Context(), "step", func(tx protocol.Tx) error {
			rows, err := tx.Lock(t.Context(), ids)
			if err != nil {
				return err
			}
			for i := range rows {
				change(&rows[i])
			}
			return tx.Write(t.Context(), &protocol.Changes{Rows: rows})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	owner := NewID()
	write(func(r *protocol.Row) { r.State, r.Owner, r.Run = protocol.Running, owner, 1 })
	const steps = 10
	for range steps {
		write(func(r *protocol.Row) { r.Seq++ })
	}
	b.db.Close() // its sessions hand in their counts
	want := len(ids) * (steps + 1)
	testkit.Eventually(t, 20*time.Second, "the server has counted the updates", func() error {
		got := b.sql(t, "SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM pg_stat_user_tables WHERE relname LIKE 'executions%'")
		all, hot, _ := strings.Cut(got, "|")
		if all != strconv.Itoa(want) {
			return fmt.Errorf("%s of %d so far", got, want)
		}
		if n, err := strconv.Atoi(hot); err != nil || n < want*3/4 {
			t.Errorf("%s of %d updates stayed in their pages", hot, want)
		}
		return nil
	})
}

package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

func (b *bundle) unhandedOf(t *testing.T, db *DB) []protocol.ID {
	t.Helper()
	ids, err := db.Unhanded(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(ids, func(a, b protocol.ID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// A row whose transaction commits after later ones have been looked at is found all the same: the cursor waits for it.
func TestUnhandedLateCommit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	slow := newExecution(NewID())
	inside, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		args, _ := insertArgs([]*NewExecution{&slow})
		done <- b.db.txn(t.Context(), "slow", func(x *tx) error {
			if _, err := x.conn.Exec(t.Context(), insertPlainSQL, args...); err != nil {
				return err
			}
			close(inside)
			<-release
			return nil
		})
	}()
	<-inside
	leader := b.open(t, "flow_orchestrator")
	var want []protocol.ID
	for range 3 {
		want = append(want, b.insert(t, 2)...)
		if got := b.unhandedOf(t, leader); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := b.unhandedOf(t, leader); !slices.Contains(got, slow.ID) || len(got) != len(want)+1 {
		t.Fatalf("the late commit is missing: %v", got)
	}
}

// A new leader begins where the last one was, and still finds what that one only remembered.
func TestUnhandedNewLeader(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.open(t, "flow_orchestrator")
	stuck := b.insert(t, 1)[0]
	b.unhandedOf(t, first)
	many := b.insert(t, 50)
	marks := make([]protocol.Handed, len(many))
	for i, id := range many {
		marks[i] = protocol.Handed{ID: id, Attempt: 1}
	}
	if err := b.db.MarkHanded(t.Context(), marks); err != nil {
		t.Fatal(err)
	}
	first.unhanded.next = time.Time{} // it is time to save
	if got := b.unhandedOf(t, first); !slices.Equal(got, []protocol.ID{stuck}) {
		t.Fatalf("got %v, want %v", got, stuck)
	}
	testkit.Eventually(t, 20*time.Second, "the position stays at the stuck row", func() error { // a transaction of another test on this server may hold the horizon back for a while
		first.unhanded.next = time.Time{}
		b.unhandedOf(t, first)
		if pos, from := first.unhanded.position(), first.unhanded.from; pos >= from {
			return fmt.Errorf("position %d, the next look begins at %d", pos, from)
		}
		return nil
	})
	second := b.open(t, "flow_orchestrator")
	if got := b.unhandedOf(t, second); !slices.Equal(got, []protocol.ID{stuck}) {
		t.Fatalf("the new leader got %v, want %v", got, stuck)
	}
	if second.unhanded.saved == 0 {
		t.Fatal("the new leader began at the first row")
	}
	if err := b.db.MarkHanded(t.Context(), []protocol.Handed{{ID: stuck, Attempt: 1}}); err != nil {
		t.Fatal(err)
	}
	second.unhanded.next = time.Time{}
	if got := b.unhandedOf(t, second); len(got) != 0 {
		t.Fatalf("got %v, want none", got)
	}
	if pos := b.sql(t, "SELECT position FROM cursors WHERE name = 'unhanded'"); pos != fmt.Sprint(second.unhanded.from) {
		t.Fatalf("position %s, want %d", pos, second.unhanded.from)
	}
}

// A position from another life of the database, or a server that was promoted, makes the scan begin anew.
func TestUnhandedAnotherServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.insert(t, 3)
	b.sql(t, "INSERT INTO cursors (name, position) VALUES ('unhanded', 9000000000000)")
	restored := b.open(t, "flow_orchestrator")
	if got := b.unhandedOf(t, restored); !slices.Equal(got, ids) {
		t.Fatalf("after a restore: %v, want %v", got, ids)
	}
	b.sql(t, "DELETE FROM cursors")
	leader := b.open(t, "flow_orchestrator")
	b.unhandedOf(t, leader)
	leader.unhanded.life, leader.unhanded.from = "00000000", 9_000_000_000_000 // as its predecessor counted
	more := b.insert(t, 1)
	if got := b.unhandedOf(t, leader); !slices.Equal(got, append(ids, more...)) {
		t.Fatalf("after a promotion: %v, want %v and %v", got, ids, more)
	}
}

// More than fits the memory: the cursor stands, nothing is lost, and it goes on when the backlog is handed out.
func TestUnhandedTake(t *testing.T) {
	t.Parallel()
	row := func(n int) unhandedRow { return unhandedRow{id: protocol.ID{15: byte(n)}, tx: int64(n)} }
	s := unhandedScan{from: 1}
	s.take(nil, []unhandedRow{row(2), row(3)}, 10, true)
	if s.from != 3 || len(s.open) != 2 {
		t.Fatalf("a full look must go on from its last row, not from %d", s.from)
	}
	found := s.take([]unhandedRow{row(2)}, []unhandedRow{row(3), row(9)}, 10, false)
	if s.from != 10 || len(found) != 3 || s.position() != 2 {
		t.Fatalf("from %d, position %d, found %v", s.from, s.position(), found)
	}
	s.take(nil, nil, 5, false)
	if s.from != 10 || s.position() != 10 {
		t.Fatalf("the cursor only moves on, not to %d", s.from)
	}
}

// On a broker that begins empty what was handed out is not: the reconciler finds it, whichever way its cursor went already.
func TestForgetHanded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	leader := b.open(t, "flow_orchestrator")
	ids := b.insert(t, 3)
	var marks []protocol.Handed
	for _, id := range ids {
		marks = append(marks, protocol.Handed{ID: id, Attempt: 1})
	}
	if err := leader.MarkHanded(t.Context(), marks); err != nil {
		t.Fatal(err)
	}
	if got := b.unhandedOf(t, leader); len(got) != 0 {
		t.Fatalf("marked, and found all the same: %v", got)
	}
	owner := b.open(t, "postgres")
	if n, err := owner.ForgetHanded(t.Context()); err != nil || n != 3 {
		t.Fatalf("%d %v", n, err)
	}
	if got := b.unhandedOf(t, leader); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
	if n, err := owner.ForgetHanded(t.Context()); err != nil || n != 0 {
		t.Errorf("again: %d %v", n, err)
	}
}

package storetest

import (
	"testing"

	"flowplatform/services/internal/protocol"
)

// held runs a transaction that locks the ids, and gives a function that lets it change the first of them and commit.
func (s *suite) held(t *testing.T, ids []protocol.ID, fn func(*protocol.Row)) (finish func()) {
	t.Helper()
	locked, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Store.Txn(s.ctx, "holder", func(tx protocol.Tx) error {
			rows, err := tx.Lock(s.ctx, ids)
			close(locked)
			<-release
			if err != nil {
				return err
			}
			fn(&rows[0])
			return tx.Write(s.ctx, &protocol.Changes{Rows: rows})
		})
	}()
	<-locked
	return func() {
		t.Helper()
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func lockWaits(t *testing.T, s *suite) {
	if !s.Concurrent {
		t.Skip("needs concurrent transactions")
	}
	id := s.insert(t, 1)[0]
	finish := s.held(t, []protocol.ID{id}, func(r *protocol.Row) { r.State, r.Seq = protocol.Waiting, 3 })
	got := make(chan protocol.Row, 1)
	done := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		done <- s.Store.Txn(s.ctx, "waiter", func(tx protocol.Tx) error {
			close(started)
			rows, err := tx.Lock(s.ctx, []protocol.ID{id})
			if err == nil {
				got <- rows[0]
			}
			return err
		})
	}()
	<-started
	select {
	case r := <-got:
		t.Fatalf("a row that another transaction holds was given: %+v", r)
	default:
	}
	finish()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if r := <-got; r.State != protocol.Waiting || r.Seq != 3 {
		t.Fatalf("the lock shows an old row: %+v", r)
	}
}

func readCommitted(t *testing.T, s *suite) {
	if !s.Concurrent {
		t.Skip("needs concurrent transactions")
	}
	id := s.session(t)
	s.txn(t, func(tx protocol.Tx) error {
		before, err := tx.Alive(s.ctx, []protocol.ID{id})
		if err != nil {
			return err
		}
		s.end(t, id) // in a transaction of its own
		after, err := tx.Alive(s.ctx, []protocol.ID{id})
		if !before[id] || after[id] {
			t.Errorf("alive before %v, after %v: a statement must see what was committed before it began", before[id], after[id])
		}
		return err
	})
	// What isn't committed isn't seen.
	x := s.insert(t, 1)[0]
	s.txn(t, func(tx protocol.Tx) error {
		if err := s.changeIn(tx, x, func(r *protocol.Row, _ *protocol.Changes) { r.Hold = "mine" }); err != nil {
			return err
		}
		if r := s.Row(t, x); r.Hold != "" {
			t.Errorf("others see an uncommitted row: %+v", r)
		}
		return nil
	})
}

func marksSkip(t *testing.T, s *suite) {
	if !s.Concurrent {
		t.Skip("needs concurrent transactions")
	}
	ids := s.insert(t, 2)
	finish := s.held(t, ids[:1], func(*protocol.Row) {})
	if err := s.Store.MarkHanded(s.ctx, []protocol.Handed{{ID: ids[0], Attempt: 1}, {ID: ids[1], Attempt: 1}}); err != nil {
		t.Fatal(err)
	}
	finish()
	if a, b := s.Row(t, ids[0]).Handed, s.Row(t, ids[1]).Handed; a != 0 || b != 1 {
		t.Fatalf("handed %d and %d: the locked row must be left out, the other marked", a, b)
	}
}

// deadlocks makes two transactions lock each other's second row: the store must run one of them again, and both succeed.
func deadlocks(t *testing.T, s *suite) {
	if !s.Concurrent {
		t.Skip("needs concurrent transactions")
	}
	ids := s.insert(t, 2)
	both := make(chan struct{}, 2)
	meet := make(chan struct{})
	go func() { <-both; <-both; close(meet) }()
	done := make(chan error, 2)
	for i := range 2 {
		go func() {
			first := true
			done <- s.Store.Txn(s.ctx, "deadlock", func(tx protocol.Tx) error {
				rows, err := tx.Lock(s.ctx, []protocol.ID{ids[i]})
				if err != nil {
					return err
				}
				if first {
					first = false
					both <- struct{}{}
					<-meet
				}
				more, err := tx.Lock(s.ctx, []protocol.ID{ids[1-i]})
				if err != nil {
					return err
				}
				rows[0].Seq++
				more[0].Seq++
				return tx.Write(s.ctx, &protocol.Changes{Rows: append(rows, more...)})
			})
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, id := range ids {
		if r := s.Row(t, id); r.Seq != 2 {
			t.Errorf("seq %d, want 2: both transactions count once", r.Seq)
		}
	}
}

package sim

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// Letters, as the database keeps them: by id, and a lock for each key.

type letter struct {
	protocol.Letter
	by protocol.ID // who took it
}

// LockKeys waits for each lock in turn; names are sorted.
func (t *txn) LockKeys(_ context.Context, names []string) error {
	if err := t.statement(); err != nil {
		return err
	}
	for _, name := range names {
		l := t.s.db.keys[name]
		if l == nil {
			if t.s.db.keys == nil {
				t.s.db.keys = map[string]*rowLock{}
			}
			l = &rowLock{}
			t.s.db.keys[name] = l
		}
		if err := t.acquire(l); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) Waiters(_ context.Context, keys []protocol.Waiter, each int) (map[protocol.Waiter][]protocol.ID, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	out := map[protocol.Waiter][]protocol.ID{}
	for _, k := range keys {
		var waits []protocol.OpenWait
		for _, e := range t.s.db.execs {
			for _, w := range e.waits {
				if e.exists && e.row.State == protocol.Waiting && w.Met.IsZero() && w.Kind == k.Kind && w.Key == k.Key {
					waits = append(waits, w)
				}
			}
		}
		slices.SortStableFunc(waits, func(a, b protocol.OpenWait) int { return a.Since.Compare(b.Since) })
		for _, w := range waits[:min(len(waits), each)] {
			out[k] = append(out[k], w.Execution)
		}
	}
	return out, nil
}

func (t *txn) Known(_ context.Context, letters []protocol.Letter) ([]protocol.KnownLetter, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	out := make([]protocol.KnownLetter, len(letters))
	for i, l := range letters {
		for _, o := range t.s.db.letters {
			if o.ID == l.ID {
				known := o.Letter
				out[i].Letter = &known
			}
			if o.Taken.IsZero() && o.Execution == l.Execution && (!l.Execution.IsZero() || o.Kind == l.Kind && o.Key == l.Key) {
				out[i].Kept++
			}
		}
	}
	return out, nil
}

func (t *txn) Letters(_ context.Context, waits []protocol.OpenWait) ([]protocol.Letter, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var out []protocol.Letter
	for _, o := range t.s.db.letters {
		if !o.Taken.IsZero() || !o.Expires.IsZero() && !o.Expires.After(t.s.time()) {
			continue
		}
		if slices.ContainsFunc(waits, func(w protocol.OpenWait) bool {
			name, _, _ := strings.Cut(w.Key, "/")
			switch {
			case o.Kind != w.Kind:
				return false
			case o.Execution == w.Execution:
				return o.Key == w.Key || w.Kind == flow.WaitSignal && o.Key == name
			}
			return o.Execution.IsZero() && o.Key == w.Key && w.Kind == flow.WaitSignal
		}) {
			out = append(out, o.Letter)
		}
	}
	slices.SortStableFunc(out, func(a, b protocol.Letter) int { return a.At.Compare(b.At) })
	return out, nil
}

func (t *txn) Pending(_ context.Context, executions []protocol.ID) ([]protocol.Letter, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var out []protocol.Letter
	for _, o := range t.s.db.letters {
		if o.Pending && slices.Contains(executions, o.Execution) {
			out = append(out, protocol.Letter{ID: o.ID, Execution: o.Execution, Kind: o.Kind, Pending: true})
		}
	}
	return out, nil
}

func (t *txn) Children(_ context.Context, parents []protocol.ID, limit int) ([]protocol.Child, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var out []protocol.Child
	for _, e := range t.s.db.execs {
		if r := e.row; e.exists && slices.Contains(parents, r.Parent) && !r.State.Final() && r.Cancel == "" && len(out) < limit {
			out = append(out, protocol.Child{ID: r.ID, Parent: r.Parent, Retries: e.callRetries})
		}
	}
	return out, nil
}

func (st store) Mail(_ context.Context, age time.Duration, limit int) ([]protocol.ID, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	var out []protocol.ID
	for _, o := range st.p.s.db.letters {
		if o.Pending && !o.At.After(st.p.s.time().Add(-age)) && !slices.Contains(out, o.Execution) && len(out) < limit {
			out = append(out, o.Execution)
		}
	}
	return out, nil
}

// takeLetters does what a committed batch decided of letters.
func (db *database) takeLetters(c *protocol.Changes, s *Sim) {
	for _, l := range c.Posted {
		if slices.ContainsFunc(db.letters, func(o *letter) bool { return o.ID == l.ID }) {
			continue
		}
		o := &letter{Letter: l}
		if !l.Taken.IsZero() {
			o.by = l.Execution
		}
		db.letters = append(db.letters, o)
	}
	slices.SortStableFunc(db.letters, func(a, b *letter) int { return cmp.Or(a.At.Compare(b.At), slices.Compare(a.ID[:], b.ID[:])) })
	for _, l := range c.Taken {
		i := slices.IndexFunc(db.letters, func(o *letter) bool { return o.ID == l.ID })
		if i < 0 || !db.letters[i].Taken.IsZero() {
			s.fail("16 a letter taken twice", "%s %s", l.Kind, l.Key)
			continue
		}
		o := db.letters[i]
		o.Execution, o.Taken, o.by, o.Pending = l.Execution, l.Taken, l.Execution, false
	}
	for _, call := range c.Called {
		db.calls = append(db.calls, call)
		if call.Wait {
			db.execs[indexOf(call.Execution)].row.Calls = true
		}
	}
	for _, id := range c.Looked {
		if i := slices.IndexFunc(db.letters, func(o *letter) bool { return o.ID == id }); i >= 0 {
			db.letters[i].Pending = false
		}
	}
}

// KnownCall finds the child that a step has called.
func (t *txn) KnownCall(_ context.Context, c protocol.Call) (k protocol.KnownCall, err error) {
	if err := t.statement(); err != nil {
		return k, err
	}
	k.Root = c.Execution
	for _, o := range t.s.db.calls {
		if o.Execution == c.Execution && o.Node == c.Node && o.Iteration == c.Iteration && o.Retries == c.Retries {
			k.Child = o.Child
		}
		if o.Child == c.Execution {
			k.Depth = o.Depth
		}
	}
	return k, nil
}

package sim

import (
	"cmp"
	"context"
	"slices"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// Remote tasks, as the database keeps them: each row has a lock.

type remoteTask struct {
	protocol.RemoteTask
	lock rowLock
}

func (db *database) remoteTask(id protocol.ID) *remoteTask {
	for _, t := range db.remote {
		if t.ID == id {
			return t
		}
	}
	return nil
}

func (t *txn) FreeRemote(_ context.Context, project protocol.ID, queue string, limit int) ([]protocol.RemoteTask, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var found []*remoteTask
	for _, r := range t.s.db.remote {
		free := r.Ended.IsZero() && r.Lease < protocol.MaxDeliveries && !r.Until.After(t.s.time())
		if free && r.Project == project && r.Queue == queue && (r.lock.held == nil || r.lock.held == t) {
			found = append(found, r)
		}
	}
	place := map[string]int{"high": 0, "low": 2}
	rank := func(r *remoteTask) int {
		if n, ok := place[r.Priority]; ok {
			return n
		}
		return 1
	}
	slices.SortStableFunc(found, func(a, b *remoteTask) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Created.Compare(b.Created), slices.Compare(a.ID[:], b.ID[:]))
	})
	var out []protocol.RemoteTask
	for _, r := range found[:min(len(found), limit)] {
		if err := t.acquire(&r.lock); err != nil {
			return nil, err
		}
		out = append(out, r.RemoteTask)
	}
	return out, nil
}

func (t *txn) RemoteTasks(_ context.Context, ids []protocol.ID, lock bool) ([]protocol.RemoteTask, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b protocol.ID) int { return slices.Compare(a[:], b[:]) })
	var out []protocol.RemoteTask
	for _, id := range slices.Compact(ids) {
		r := t.s.db.remoteTask(id)
		if r == nil {
			continue
		}
		if lock {
			if err := t.acquire(&r.lock); err != nil {
				return nil, err
			}
		}
		out = append(out, r.RemoteTask)
	}
	return out, nil
}

func (st store) LostRemote(_ context.Context, limit int) ([]protocol.ID, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	var out []protocol.ID
	for _, r := range st.p.s.db.remote {
		if r.Ended.IsZero() && r.Lease >= protocol.MaxDeliveries && !r.Until.After(st.p.s.time()) && len(out) < limit {
			out = append(out, r.ID)
		}
	}
	return out, nil
}

// takeRemote does what a committed batch decided of remote tasks.
func (db *database) takeRemote(c *protocol.Changes, s *Sim) {
	for _, m := range c.RemoteMade {
		if db.remoteTask(m.ID) == nil {
			db.remote = append(db.remote, &remoteTask{RemoteTask: m})
		}
	}
	for _, h := range c.RemoteHeld {
		r := db.remoteTask(h.ID)
		switch {
		case r.Ended.IsZero():
			r.Lease, r.Worker, r.Until, r.Seen, r.Progress = h.Lease, h.Worker, h.Until, h.Seen, h.Progress
		case r.Outcome != protocol.RemoteExpired && r.Outcome != protocol.RemoteCancelled: // these take no lock here
			s.fail("18 handed out after its end", "E%d %s %s, lease %d", indexOf(r.Execution), r.Node, r.Outcome, h.Lease)
		}
	}
	end := func(id protocol.ID, e protocol.RemoteTask) {
		if r := db.remoteTask(id); r != nil && r.Ended.IsZero() {
			r.Ended, r.Outcome, r.Answer, r.Input = e.Ended, e.Outcome, e.Answer, nil
		}
	}
	for _, e := range c.RemoteEnded {
		end(e.ID, e)
	}
	for _, row := range c.Rows { // with its waits
		e := s.execution(row.ID)
		if e == nil || !row.State.Final() {
			continue
		}
		for _, w := range e.waits {
			if id, err := protocol.ParseID(w.Key); w.Kind == flow.WaitRemote && w.Met.IsZero() && err == nil {
				end(id, protocol.RemoteTask{Ended: s.time(), Outcome: protocol.RemoteCancelled})
			}
		}
		e.waits = slices.DeleteFunc(e.waits, func(w protocol.OpenWait) bool { return w.Kind == flow.WaitRemote && w.Met.IsZero() }) // closed: a retry opens another
	}
	if len(db.remote) > 0 && s.remote.met != nil {
		s.remoteCommitted(c)
	}
}

// RemoteTasks believes whatever lease speaks (Broken.RemoteBlind).
func (x *brokenTx) RemoteTasks(ctx context.Context, ids []protocol.ID, lock bool) ([]protocol.RemoteTask, error) {
	out, err := x.Tx.RemoteTasks(ctx, ids, lock)
	for i := range out {
		if x.b.RemoteBlind && x.t.name == "remote" {
			out[i].Lease = x.t.speaks
		}
	}
	return out, err
}

// apart leaves what an end does beside the task's row to a later transaction (Broken.RemoteApart).
func (x *brokenTx) apart(c *protocol.Changes) *protocol.Changes {
	if !x.b.RemoteApart || x.t.name != "remote" || len(c.RemoteEnded) == 0 {
		return c
	}
	l := c.Posted[0]
	x.t.late = &protocol.Letter{ID: l.ID, Project: l.Project, Execution: l.Execution, Kind: l.Kind, Key: l.Key, Output: l.Output, Error: l.Error, Sender: l.Sender, Once: true}
	return &protocol.Changes{RemoteEnded: c.RemoteEnded}
}

// FreeRemote gives what was leased and has ended, too (Broken.RemoteAgain).
func (x *brokenTx) FreeRemote(ctx context.Context, project protocol.ID, queue string, limit int) ([]protocol.RemoteTask, error) {
	out, err := x.Tx.FreeRemote(ctx, project, queue, limit)
	if err != nil || !x.b.RemoteAgain {
		return out, err
	}
	for _, r := range x.t.s.db.remote {
		if r.Outcome == protocol.RemoteCompleted && len(out) < limit {
			again := r.RemoteTask
			again.Ended, again.Until = time.Time{}, time.Time{}
			out = append(out, again)
		}
	}
	return out, nil
}

package protocol

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"flowplatform/services/internal/flow"
)

// What follows an end: the one who called is told, those who were called are cancelled, and flows that ask for bad ends are started (catch.go).

// post leaves what the ends of a batch mean for others: a letter to whoever called, one to cancel what was called, and a failure. Their commit is the promise; to act on them is
// a transaction of its own (Post), which anyone may do, any number of times.
func (b *batch) post() {
	for i := range b.changes.Results {
		res := &b.changes.Results[i]
		r := b.rows[res.ID]
		if !r.State.Final() {
			continue
		}
		b.fail(r, res)
		if !r.Parent.IsZero() {
			b.changes.Posted = append(b.changes.Posted, endOfChild(r, res, b.now))
			b.out.Mail = append(b.out.Mail, r.Parent)
		}
		if r.Calls {
			b.changes.Posted = append(b.changes.Posted, Letter{ID: letterID(KindDown, r), Project: r.Project, Execution: r.ID, Kind: KindDown, At: b.now, Pending: true})
			b.out.Mail = append(b.out.Mail, r.ID)
		}
	}
}

// endOfChild is the letter that tells a parent how its child ended.
func endOfChild(r *Row, res *FinalResult, now time.Time) Letter {
	l := Letter{ID: letterID(flow.WaitChildren, r), Project: r.Project, Execution: r.Parent, Kind: flow.WaitChildren, Key: r.ID.String(), At: now, Pending: true}
	if r.State == Succeeded {
		l.Output, l.OutputRef = res.Output, res.OutputRef
		if l.OutputRef != nil {
			l.From = r.ID
		}
		return l
	}
	why := map[string]any{"code": string(r.State)}
	message := "without saying why"
	if e := res.Error; e != nil {
		why, message = map[string]any{"code": e.Code, "message": e.Message, "node": e.Node}, e.Message
		if e.Data != nil {
			why["data"] = e.Data
		}
	}
	l.Error = &flow.Failure{Code: "child-failed", Message: fmt.Sprintf("the called execution %s ended as %s: %s", r.ID, r.State, message), Data: map[string]any{"id": r.ID.String(), "status": string(r.State), "error": why}}
	return l
}

// letterID is that of the letter which an attempt's end leaves: there is one.
func letterID(kind string, r *Row) (id ID) {
	h := fnv.New128a()
	h.Write([]byte(kind))
	h.Write(r.ID[:])
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(r.Attempt)))
	copy(id[:], h.Sum(nil))
	copy(id[:6], r.ID[:6]) // of its execution's time: what is deleted together lies together
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return id
}

// Post acts on what is pending for executions: it wakes those who wait for it, and cancels the children of those who have ended.
func Post(ctx context.Context, tx Tx, ids []ID) (Outcome, error) {
	b, err := post(ctx, tx, ids)
	if err != nil {
		return Outcome{}, fmt.Errorf("post: %w", err)
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("post: %w", err)
	}
	return b.out, nil
}

func post(ctx context.Context, tx Tx, ids []ID) (*batch, error) {
	pending, err := tx.Pending(ctx, ids)
	if err != nil {
		return nil, err
	}
	var woken, down []ID
	for _, l := range pending {
		if l.Kind == KindDown {
			down = append(down, l.Execution)
		} else {
			woken = append(woken, l.Execution)
		}
	}
	var children []Child
	all := slices.Concat(woken, down)
	if len(down) > 0 {
		if children, err = tx.Children(ctx, down, maxDown); err != nil {
			return nil, err
		}
		for _, c := range children {
			all = append(all, c.ID)
		}
	}
	b, err := lock(ctx, tx, all)
	if err != nil {
		return nil, err
	}
	if len(woken) > 0 {
		open, err := tx.OpenWaits(ctx, woken)
		if err != nil {
			return nil, err
		}
		there, err := letters(ctx, tx, open)
		if err != nil {
			return nil, err
		}
		if err := b.meet(open, there); err != nil {
			return nil, err
		}
	}
	more := len(children) == maxDown
	for _, c := range children {
		b.cancelChild(c)
	}
	for _, l := range pending {
		if l.Kind == KindDown && more {
			b.out.Mail = append(b.out.Mail, l.Execution)
			continue
		}
		b.changes.Looked = append(b.changes.Looked, l.ID)
	}
	return b, nil
}

// cancelChild cancels a child whose caller has ended, or was retried since.
func (b *batch) cancelChild(c Child) {
	r, ok := b.rows[c.ID]
	p, known := b.rows[c.Parent]
	if !ok || known && !p.State.Final() && p.Retries <= c.Retries {
		return
	}
	changed, owned, ef := r.cancel(Cancelled, b.now)
	if changed {
		b.take(r, ef)
	}
	if owned {
		b.out.Told = append(b.out.Told, CancelOrder{Execution: c.ID, As: r.Cancel})
	}
}

// Mail acts on what has been pending for at least age: what a follow-up that was lost would have done. It tells how many executions it found.
func (r *Reconciler) Mail(ctx context.Context, age time.Duration) (out Outcome, found int, err error) {
	ids, err := r.Store.Mail(ctx, age, r.limit())
	if err != nil || len(ids) == 0 {
		return out, 0, err
	}
	err = r.Store.Txn(ctx, "post", func(tx Tx) error {
		var err error
		out, err = Post(ctx, tx, ids)
		return err
	})
	if err != nil {
		return Outcome{}, 0, err
	}
	_, err = HandOut(ctx, r.Store, r.Publisher, out.HandOut)
	return out, len(ids), err
}

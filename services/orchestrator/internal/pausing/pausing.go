// Package pausing is the leader's part of pauses: it carries the pause of a flow to all of its executions that are not final, and lets go what a
// flow or a node type held that is paused no more.
//
// It keeps no job: what should be stands in the rows of flows and pauses, what is stands in those of executions, and each look makes the one more like the
// other, in batches and in the order of ids. So a leader that dies in the middle loses nothing, and two of them do no harm. It is also the
// net for what began beside a change: a start that still believed the flow to be paused, or not to be.
package pausing

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

const (
	every     = time.Second
	page      = 1000 // rows that one look at a flow reads
	batch     = 500  // rows that one transaction changes
	stepBound = 30 * time.Second
	// behind is how far a walk that has come to the end goes back: executions are committed a little later than their ids were made.
	behind = 15 * time.Second
)

// Store is what the leader needs of the database.
type Store interface {
	Txn(ctx context.Context, name string, fn func(protocol.Tx) error) error
	PausedFlows(ctx context.Context) (map[protocol.ID]string, error)
	UnpausedOf(ctx context.Context, flow, after protocol.ID, page int) (ids []protocol.ID, last protocol.ID, err error)
	HoldingFlows(ctx context.Context) ([]protocol.ID, error)
	ReleasableOf(ctx context.Context, flow protocol.ID, limit int) ([]protocol.ID, error)
}

// Valid tells whether the term may act at this moment.
type Valid interface{ Valid() bool }

// Options of New. All are required.
type Options struct {
	Store      Store
	Follow     func(protocol.Outcome) // takes what a commit leaves to be done; never waits
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Pausing does the work. One term at a time.
type Pausing struct {
	o       Options
	metrics *metrics
	walks   map[protocol.ID]protocol.ID // paused flows: how far each was walked
}

// New returns one that has nothing to do yet.
func New(o Options) *Pausing { return &Pausing{o: o, metrics: newMetrics(o.Registerer)} }

// Work works until ctx ends.
func (p *Pausing) Work(ctx context.Context, term Valid) {
	p.walks = map[protocol.ID]protocol.ID{}
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		if term.Valid() {
			bounded, cancel := context.WithTimeout(ctx, stepBound)
			err := p.step(bounded, term)
			cancel()
			if err != nil && ctx.Err() == nil && !failing {
				p.o.Log.Warn("pauses can't be carried out now; the next look tries again", "error", err)
			}
			failing = err != nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Pausing) step(ctx context.Context, term Valid) error {
	paused, err := p.o.Store.PausedFlows(ctx)
	if err != nil {
		return err
	}
	for flow := range p.walks {
		if paused[flow] == "" {
			delete(p.walks, flow)
		}
	}
	for flow, text := range paused {
		if err := p.hold(ctx, term, flow, text); err != nil {
			return err
		}
	}
	holding, err := p.o.Store.HoldingFlows(ctx)
	if err != nil {
		return err
	}
	for _, flow := range holding {
		if paused[flow] != "" {
			continue
		}
		if err := p.release(ctx, term, flow); err != nil {
			return err
		}
	}
	return nil
}

// hold walks along a paused flow's executions, the oldest first, and pauses what isn't.
func (p *Pausing) hold(ctx context.Context, term Valid, flow protocol.ID, text string) error {
	for term.Valid() {
		ids, last, err := p.o.Store.UnpausedOf(ctx, flow, p.walks[flow], page)
		if err != nil {
			return err
		}
		for len(ids) > 0 {
			n := min(len(ids), batch)
			_, err := p.apply(ctx, "pause.flow", func(tx protocol.Tx) (protocol.Outcome, []protocol.Verdict, error) {
				return protocol.Pause(ctx, tx, ids[:n], text)
			}, p.metrics.paused)
			if err != nil {
				return err
			}
			ids = ids[n:]
		}
		if last.IsZero() { // the end; the next look goes back a little
			p.walks[flow] = firstID(time.Now().Add(-behind))
			return nil
		}
		p.walks[flow] = last
	}
	return nil
}

// release lets a flow's executions go on, the oldest first, batch after batch.
func (p *Pausing) release(ctx context.Context, term Valid, flow protocol.ID) error {
	for term.Valid() {
		ids, err := p.o.Store.ReleasableOf(ctx, flow, batch)
		if err != nil || len(ids) == 0 {
			return err
		}
		n, err := p.apply(ctx, "resume.flow", func(tx protocol.Tx) (protocol.Outcome, []protocol.Verdict, error) {
			return protocol.Resume(ctx, tx, ids, false)
		}, p.metrics.released)
		if err != nil || n == 0 { // nothing came of it: it was paused again meanwhile
			return err
		}
	}
	return nil
}

// apply runs a script in a transaction, and tells how many executions it changed.
func (p *Pausing) apply(ctx context.Context, name string, script func(protocol.Tx) (protocol.Outcome, []protocol.Verdict, error), counter prometheus.Counter) (int, error) {
	var out protocol.Outcome
	var verdicts []protocol.Verdict
	err := p.o.Store.Txn(ctx, name, func(tx protocol.Tx) error {
		var err error
		out, verdicts, err = script(tx)
		return err
	})
	if err != nil {
		return 0, err
	}
	p.o.Follow(out)
	n := 0
	for _, v := range verdicts {
		if v.Done {
			n++
		}
	}
	counter.Add(float64(n))
	return n, nil
}

// firstID is the smallest id of an instant: ids begin with the milliseconds at which they were made.
func firstID(at time.Time) (id protocol.ID) {
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

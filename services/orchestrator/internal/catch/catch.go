// Package catch is the leader's part of error triggers: it starts the flows that ask for the bad ends of others.
//
//	failures ─► look ─► which triggers (protocol.CatchesOf) ─► executions (package start) ─► one transaction (protocol.CatchFailures) ─► COMMIT ─► hand out
//
// The transaction that ended the execution has left the failure; here it is taken away together with what it starts. A leader that is killed anywhere leaves either the failure or what became of it. Two that
// work at once do no harm, so nothing here needs the term but for not doing work twice.
package catch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
)

const (
	every = 250 * time.Millisecond
	batch = 100 // failures that one transaction decides on
	bound = 20 * time.Second
)

// Store is what the leader needs of the database.
type Store interface {
	PendingFailures(ctx context.Context, limit int) ([]store.PendingFailure, time.Time, error)
	ErrorTriggers(ctx context.Context) ([]protocol.ErrorTrigger, error)
	CatchTxn(ctx context.Context, rows []store.NewExecution, fn func(protocol.CatchTx) error) error
	ExistingExecutions(ctx context.Context, ids []protocol.ID) (map[protocol.ID]bool, error)
}

// Valid tells whether the term may act at this moment.
type Valid interface{ Valid() bool }

// Options of New. All are required.
type Options struct {
	Store       Store
	Definitions *definitions.Definitions
	Shards      func() int
	Follow      func(protocol.Outcome) // takes what a commit leaves to be done; never waits
	Log         *slog.Logger
	Registerer  prometheus.Registerer
}

// Catcher does the work. One term at a time.
type Catcher struct {
	o       Options
	metrics *metrics
}

// New returns one that has nothing to do yet.
func New(o Options) *Catcher { return &Catcher{o: o, metrics: newMetrics(o.Registerer)} }

// Work works until ctx ends.
func (c *Catcher) Work(ctx context.Context, term Valid) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		more := false
		if term.Valid() {
			var err error
			bounded, cancel := context.WithTimeout(ctx, bound)
			more, err = c.step(bounded)
			cancel()
			if err != nil && ctx.Err() == nil {
				c.metrics.failed.Inc()
				if !failing {
					c.o.Log.Warn("flows with a trigger.error can't be started now; the next look tries again", "error", err)
				}
			}
			failing = err != nil
		}
		if more && !failing {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// plan is what one transaction decides on.
type plan struct {
	ends    []protocol.End
	at      map[protocol.End]time.Time
	catches []protocol.Catch
	rows    []store.NewExecution
}

// step decides on a batch of failures. It tells whether there are more.
func (c *Catcher) step(ctx context.Context) (more bool, err error) {
	failures, now, err := c.o.Store.PendingFailures(ctx, batch)
	if err != nil || len(failures) == 0 {
		return false, err
	}
	triggers, err := c.o.Store.ErrorTriggers(ctx)
	if err != nil {
		return false, err
	}
	p := plan{at: map[protocol.End]time.Time{}}
	for i := range failures {
		if err := c.prepare(ctx, &p, &failures[i], triggers, now); err != nil {
			return false, err
		}
	}
	return len(failures) == batch, c.commit(ctx, &p)
}

// prepare adds what shall become of a failure. An error is about us: it stays.
func (c *Catcher) prepare(ctx context.Context, p *plan, f *store.PendingFailure, triggers []protocol.ErrorTrigger, now time.Time) error {
	p.ends, p.at[f.End] = append(p.ends, f.End), f.At
	for _, k := range protocol.CatchesOf(&f.FailureView, triggers) {
		if k.Outcome == protocol.CatchStarted {
			row, refused, err := c.execution(ctx, &k, f, now)
			switch {
			case err != nil:
				return fmt.Errorf("failure of %s: %w", f.Execution, err)
			case refused != "":
				k.Outcome, k.Reason = protocol.CatchRefused, refused
			default:
				k.Started = row.ID
				p.rows = append(p.rows, row)
			}
		}
		p.catches = append(p.catches, k)
	}
	return nil
}

// execution makes the execution of one failure at one trigger, or says why the flow can't be started.
func (c *Catcher) execution(ctx context.Context, k *protocol.Catch, f *store.PendingFailure, now time.Time) (store.NewExecution, string, error) {
	shards := c.o.Shards()
	if shards < 1 {
		return store.NewExecution{}, "", errors.New("the number of report queues is not known yet")
	}
	head, err := c.o.Definitions.Head(ctx, k.Flow.String())
	if errors.Is(err, store.ErrNotFound) {
		return store.NewExecution{}, "the flow was deleted", nil
	}
	if err != nil {
		return store.NewExecution{}, "", err
	}
	row, problems, err := start.Failure(ctx, c.o.Definitions, head, k.Node, f, now, shards)
	var refused *start.RefusedError
	switch {
	case errors.As(err, &refused):
		return row, refused.Error(), nil
	case err != nil:
		return row, "", err
	case len(problems) > 0:
		return row, "the input doesn't fit the flow's inputSchema: " + problemText(problems), nil
	}
	return row, "", nil
}

func problemText(problems []flow.Problem) string {
	text := problems[0].Pointer + ": " + problems[0].Message
	if n := len(problems) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// commit decides, and hands out what it started. A value that the database refuses is found by deciding on each failure alone; alone, its starts are refused.
func (c *Catcher) commit(ctx context.Context, p *plan) error {
	var out protocol.Outcome
	var done []protocol.Catch
	err := c.o.Store.CatchTxn(ctx, p.rows, func(tx protocol.CatchTx) (err error) {
		out, done, err = protocol.CatchFailures(ctx, tx, p.ends, p.catches)
		return err
	})
	switch {
	case errors.Is(err, protocol.ErrUnknown):
		return errors.Join(err, c.readBack(ctx, p.rows))
	case errors.Is(err, protocol.ErrData) && len(p.ends) > 1:
		for _, e := range p.ends {
			if err := c.commit(ctx, p.alone(e)); err != nil {
				return err
			}
		}
		return nil
	case errors.Is(err, protocol.ErrData) && len(p.rows) > 0:
		p.rows = nil
		for i := range p.catches {
			if k := &p.catches[i]; !k.Started.IsZero() {
				k.Started, k.Outcome, k.Reason = protocol.ID{}, protocol.CatchRefused, "the database refuses a value of its input: "+err.Error()
			}
		}
		return c.commit(ctx, p)
	case err != nil:
		return err
	}
	c.o.Follow(out)
	for _, k := range done {
		c.metrics.catches.WithLabelValues(k.Outcome).Inc()
		c.metrics.lateness.Observe(max(0, time.Since(p.at[k.End]).Seconds()))
		if k.Outcome == protocol.CatchRefused {
			c.o.Log.Warn("a flow with a trigger.error could not be started", "flow", k.Flow.String(), "failed_execution", k.Execution.String(), "reason", k.Reason)
		}
	}
	return nil
}

// alone is the part of the plan that is about one end.
func (p *plan) alone(e protocol.End) *plan {
	out := &plan{ends: []protocol.End{e}, at: p.at}
	for _, k := range p.catches {
		if k.End != e {
			continue
		}
		out.catches = append(out.catches, k)
		if i := slices.IndexFunc(p.rows, func(r store.NewExecution) bool { return r.ID == k.Started }); i >= 0 {
			out.rows = append(out.rows, p.rows[i])
		}
	}
	return out
}

// readBack hands out what a commit whose answer was lost has started after all. What it has not done, the next look does.
func (c *Catcher) readBack(ctx context.Context, rows []store.NewExecution) error {
	ids := make([]protocol.ID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	there, err := c.o.Store.ExistingExecutions(ctx, ids)
	var out protocol.Outcome
	for id := range there {
		out.HandOut = append(out.HandOut, id)
	}
	c.o.Follow(out)
	return err
}

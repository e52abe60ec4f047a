package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Broken is what a fault did.
type Broken struct {
	What string                      // which instance, for people
	At   time.Time                   // when it was hit; finding it may have taken a while
	Mend func(context.Context) error // lets it go on; nil: it comes back by itself
}

// Options of a drill.
type Options struct {
	Server   string // the front door, for example http://localhost:8080
	Token    string // of a user who may make and start flows; without a rate limit
	Database string // URL; the role must be able to read executions and reports
	Seed     uint64
	Duration time.Duration // of the load
	Calm     time.Duration // before the first fault and after the last
	Settle   time.Duration // how long what was accepted may take to end once the load is over
	Rate     float64       // executions begun in a second
	Keys     bool          // each with an Idempotency-Key, as clients are told to
	Break    func(context.Context, Step) (Broken, error)
	Say      func(format string, args ...any) // what happens, as it happens
}

const (
	mendBound  = 20 * time.Second
	breakBound = 30 * time.Second // most of it to find who leads
	think      = 50 * time.Millisecond
	pause      = 2 * time.Second // of the flow: over 1 s it is suspended, and a timer of the leader wakes it
)

// effects are the steps that call the outside world: two in a row, a timer, one more.
func effects() []string { return []string{"a", "b", "c"} }

// document is the drill's flow.
func document(target string, at time.Time) ([]byte, error) {
	call := func(id string) any {
		return map[string]any{"id": id, "type": "http.request", "timeout": "20s",
			"config": map[string]any{"method": "POST", "url": target + "/" + id, "body": map[string]any{"i": "{{ input.i }}"}}}
	}
	edge := func(from, to string) any { return map[string]any{"from": from, "to": to} }
	return json.Marshal(map[string]any{
		"name": "chaos drill " + at.UTC().Format("2006-01-02 15:04:05.000"),
		"nodes": []any{map[string]any{"id": "start", "type": "trigger.manual"}, call("a"), call("b"),
			map[string]any{"id": "pause", "type": "flow.delay", "config": map[string]any{"duration": fmt.Sprintf("%ds", int(pause.Seconds()))}}, call("c")},
		"edges": []any{edge("start", "a"), edge("a", "b"), edge("b", "pause"), edge("pause", "c")},
	})
}

// Run does the drill: bounded in time, and with all mended that it stopped, however it ends. An error means that there is no result; whether the
// promises were kept is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	steps, err := Plan(o.Seed, o.Duration, o.Calm)
	if err != nil {
		return nil, err
	}
	d, err := o.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer d.close()

	begun := time.Now()
	loading, over := context.WithDeadline(ctx, begun.Add(o.Duration))
	sent := make(chan []request, 1)
	go func() { sent <- d.client.steady(loading, d.flow, o.Rate) }()
	faults := o.breakAll(loading, steps, begun)
	<-loading.Done()
	over()
	requests := <-sent
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	end := time.Now()
	e, err := d.evidence(ctx, requests)
	if err != nil {
		return nil, err
	}
	return o.report(e, faults, begun, end), nil
}

// During puts the drill's load on a platform while act does something to it, with the calm before and after, and counts. Act may fail: that is the error,
// beside the counts as far as there are any.
func During(ctx context.Context, o Options, act func(context.Context) error) (Counts, error) {
	d, err := o.begin(ctx)
	if err != nil {
		return Counts{}, err
	}
	defer d.close()
	loading, over := context.WithCancel(ctx)
	defer over()
	sent := make(chan []request, 1)
	go func() { sent <- d.client.steady(loading, d.flow, o.Rate) }()
	rest(ctx, o.Calm)
	failed := act(ctx)
	rest(ctx, o.Calm)
	over()
	requests := <-sent
	if ctx.Err() != nil {
		return Counts{}, errors.Join(failed, ctx.Err())
	}
	e, err := d.evidence(ctx, requests)
	if err != nil {
		return Counts{}, errors.Join(failed, err)
	}
	return judge(e), failed
}

// drill is what every one of them needs: the outside world, somebody who looks into the database, and a user with a flow.
type drill struct {
	o      Options
	target *Target
	ledger *ledger
	client *client
	flow   string
}

func (o Options) begin(ctx context.Context) (_ *drill, err error) {
	d := &drill{o: o}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.target, err = NewTarget(func(r *http.Request) { rest(r.Context(), think) }); err != nil {
		return nil, err
	}
	if d.ledger, err = openLedger(ctx, o.Database); err != nil {
		return nil, err
	}
	d.client = newClient(strings.TrimRight(o.Server, "/"), o.Token)
	d.client.keys = o.Keys
	doc, err := document(d.target.URL, time.Now())
	if err != nil {
		return nil, err
	}
	if d.flow, err = d.client.post(ctx, "/flows", doc); err != nil {
		return nil, fmt.Errorf("make the drill's flow: %w", err)
	}
	return d, nil
}

func (d *drill) close() {
	if d.ledger != nil {
		d.ledger.close()
	}
	if d.target != nil {
		d.target.Close()
	}
}

// evidence waits until what was accepted has ended, and asks everybody what they have seen.
func (d *drill) evidence(ctx context.Context, requests []request) (evidence, error) {
	d.o.Say("the load is over: %d requests; waiting for what was accepted", len(requests))
	if err := d.ledger.settle(ctx, d.flow, d.o.Settle); err != nil {
		return evidence{}, err
	}
	e := evidence{steps: effects(), requests: requests, visits: d.target.visits()}
	var err error
	if e.records, err = d.ledger.executions(ctx, "flow_id = $1::text::uuid", d.flow); err != nil {
		return evidence{}, err
	}
	if e.done, err = d.ledger.confirmed(ctx, slices.Collect(maps.Keys(e.records))); err != nil {
		return evidence{}, err
	}
	return e, nil
}

// Count judges executions that were all accepted, by what the target has seen and the database says: these steps of each.
func Count(ctx context.Context, database string, t *Target, ids, steps []string) (Counts, error) {
	l, err := openLedger(ctx, database)
	if err != nil {
		return Counts{}, err
	}
	defer l.close()
	e := evidence{steps: steps, visits: t.visits()}
	for _, id := range ids {
		e.requests = append(e.requests, request{ID: id})
	}
	if e.records, err = l.executions(ctx, "id = ANY ($1::text[]::uuid[])", ids); err != nil {
		return Counts{}, err
	}
	if e.done, err = l.confirmed(ctx, ids); err != nil {
		return Counts{}, err
	}
	return judge(e), nil
}

// breakAll goes through the plan until the context ends.
func (o Options) breakAll(ctx context.Context, steps []Step, begun time.Time) []fault {
	var faults []fault
	for _, s := range steps {
		if !rest(ctx, time.Until(begun.Add(s.At))) {
			return faults
		}
		d := o.breakOne(ctx, s)
		if ctx.Err() != nil && d.err != nil {
			return faults
		}
		switch {
		case d.err != nil:
			o.Say("%5.1fs  %-9s %v", d.at.Sub(begun).Seconds(), s.Kind, d.err)
		case d.held > 0:
			o.Say("%5.1fs  %-9s %s %s for %.1f s", d.at.Sub(begun).Seconds(), s.Kind, d.what, s.Kind.did(), d.held.Seconds())
		default:
			o.Say("%5.1fs  %-9s %s %s", d.at.Sub(begun).Seconds(), s.Kind, d.what, s.Kind.did())
		}
		faults = append(faults, d)
	}
	return faults
}

// breakOne does one fault, and mends it when its time is over, when the context ends, and when anything in between panics.
func (o Options) breakOne(ctx context.Context, s Step) (d fault) {
	d = fault{Step: s, at: time.Now()}
	hitting, cancel := context.WithTimeout(ctx, breakBound)
	defer cancel()
	b, err := o.Break(hitting, s)
	d.what = b.What
	if !b.At.IsZero() {
		d.at = b.At
	}
	if err != nil {
		d.err = fmt.Errorf("not done: %w", err)
	}
	if b.Mend == nil {
		return d
	}
	defer func() {
		mending, cancel := context.WithTimeout(context.WithoutCancel(ctx), mendBound)
		defer cancel()
		if err := b.Mend(mending); err != nil {
			d.err = errors.Join(d.err, fmt.Errorf("not mended: %w", err))
		}
		d.held = time.Since(d.at)
	}()
	rest(ctx, s.Hold)
	return d
}

// settle waits until no execution of the flow is open, at most for the bound: what is open then is lost. A database that is away is asked again.
func (l *ledger) settle(ctx context.Context, flow string, bound time.Duration) error {
	until := time.Now().Add(bound)
	for {
		n, err := l.open(ctx, flow)
		switch {
		case err == nil && n == 0:
			return nil
		case time.Now().After(until) && err != nil:
			return fmt.Errorf("the database does not answer, %s after the load: %w", bound, err)
		case time.Now().After(until):
			return nil
		}
		if !rest(ctx, 250*time.Millisecond) {
			return ctx.Err()
		}
	}
}

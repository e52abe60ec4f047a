package protocol

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What people do with an execution while it runs: pause and resume. A cancel is in scripts.go, a retry in requeue.go.
//
// A pause is a text in the row: who, and why. It hands nothing out and lets nothing be claimed; an owner is told, lets what is in flight end, and
// hands the rest back. What waits goes on waiting, and when it is woken it is held. Three may pause an execution, told apart by how the text
// begins: people, its flow, and the type of one of its nodes (a worker that comes to such a step hands the execution back with it).

const (
	byPeople   = "by "
	byFlow     = "flow: "
	byNodeType = "node-type "
)

// PausedBy is the pause of one execution that somebody asked for.
func PausedBy(actor, reason string) string { return pauseText(byPeople, actor, reason) }

// FlowPaused is the pause of all executions of a flow; it stands in the flow too, and new executions begin with it.
func FlowPaused(actor, reason string) string { return pauseText(byFlow, actor, reason) }

// NodeTypePaused is the pause of an execution that came to a step of a type that is paused.
func NodeTypePaused(typ, actor, reason string) string {
	return pauseText(byNodeType+typ+": ", actor, reason)
}

func pauseText(kind, actor, reason string) string {
	if reason == "" {
		return kind + actor
	}
	return kind + actor + ": " + reason
}

// pausedType is the node type that a pause is about; "" when it is about none.
func pausedType(pause string) string {
	rest, ok := strings.CutPrefix(pause, byNodeType)
	if !ok {
		return ""
	}
	typ, _, _ := strings.Cut(rest, ":")
	return typ
}

// Pauses is what is paused beyond single executions: as the text that a row of it has.
type Pauses struct {
	Flows map[ID]string // those asked for that are paused
	Types map[string]bool
}

// holds is what a row that is to go on must stay paused with; "" when nothing is in its way.
func (p *Pauses) holds(r *Row) string {
	if text := p.Flows[r.Flow]; text != "" {
		return text
	}
	if typ := pausedType(r.Paused); typ != "" && p.Types[typ] {
		return r.Paused
	}
	return ""
}

// Verdict is what became of one execution that somebody wants something of.
type Verdict struct {
	Execution ID
	Done      bool
	State     State  // in which it was found; "": there is none
	Reason    string // why it was not done
}

// WaitPaused is the kind of the wait of a pause; it belongs to no node.
const (
	WaitPaused  = "paused"
	pausedPlace = "paused" // in place of an iteration: a hold of flow control may be open beside it
)

const unknownExecution = "no execution has this id, or no longer"

// pause lets an execution that isn't final go no further. why not: what is in the way of that.
func (r *Row) pause(text string) (whyNot string) {
	switch {
	case r.State.Final():
		return "it has ended: " + string(r.State)
	case r.Cancel != "":
		return "it was asked to end, and its worker lets go soon"
	case r.Paused != "" && !strings.HasPrefix(text, byPeople):
		return "it is paused already: " + r.Paused
	case strings.HasPrefix(r.Paused, byPeople):
		return "it is paused already: " + r.Paused
	}
	r.Paused = text
	return ""
}

// resume lets it go on. The attempt is raised where it is queued: its task may have been dropped by a worker that was refused the claim.
func (r *Row) resume(now time.Time) {
	r.Paused = ""
	if r.State == Queued {
		r.again(now)
	}
}

// Pause pauses executions that are not final. Outcome.Hushed are owners that should hear of it soon.
func Pause(ctx context.Context, tx Tx, ids []ID, text string) (Outcome, []Verdict, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("pause: %w", err)
	}
	verdicts := b.each(ids, func(r *Row) string {
		if whyNot := r.pause(text); whyNot != "" {
			return whyNot
		}
		b.touch(r)
		b.changes.Opened = append(b.changes.Opened, OpenWait{Execution: r.ID, Iteration: pausedPlace, Kind: WaitPaused, Key: pausedType(text), Reason: text, Since: b.now})
		if !r.Owner.IsZero() {
			b.out.Hushed = append(b.out.Hushed, r.ID)
		}
		return ""
	})
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, nil, fmt.Errorf("pause: %w", err)
	}
	return b.out, verdicts, nil
}

// Resume lets paused executions go on. What is paused as a whole (the flow, the node type) stays so. all: whoever paused them; else only
// what a flow or a node type paused that is paused no more.
func Resume(ctx context.Context, tx Tx, ids []ID, all bool) (Outcome, []Verdict, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("resume: %w", err)
	}
	standing, err := tx.Pauses(ctx, b.flows())
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("resume: %w", err)
	}
	verdicts := b.each(ids, func(r *Row) string {
		own := strings.HasPrefix(r.Paused, byPeople)
		switch holds := standing.holds(r); {
		case r.State.Final():
			return "it has ended: " + string(r.State)
		case r.Paused == "":
			return "it isn't paused"
		case own && !all:
			return "it is paused " + r.Paused
		case holds != "" && !own:
			return "it stays paused (" + holds + "): resume that"
		case holds != "":
			r.Paused = holds
			b.touch(r)
			return ""
		}
		b.openPause(r)
		r.resume(b.now)
		b.touch(r)
		return ""
	})
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, nil, fmt.Errorf("resume: %w", err)
	}
	return b.out, verdicts, nil
}

// openPause ends the wait of a pause. One that began with the execution, or with a step of a paused type, has no row yet.
func (b *batch) openPause(r *Row) {
	w := OpenWait{Execution: r.ID, Iteration: pausedPlace, Kind: WaitPaused, Key: pausedType(r.Paused), Reason: r.Paused, Since: r.QueuedAt}
	b.changes.Opened = append(b.changes.Opened, w)
	w.Met = b.now
	b.changes.Met = append(b.changes.Met, w)
}

// each asks do for every id once, in their order, and makes the verdicts.
func (b *batch) each(ids []ID, do func(r *Row) (whyNot string)) []Verdict {
	out := make([]Verdict, 0, len(ids))
	seen := make(map[ID]bool, len(ids))
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		v := Verdict{Execution: id, Reason: unknownExecution}
		if r, ok := b.rows[id]; ok {
			v.State = r.State
			v.Reason = do(r)
			v.Done = v.Reason == ""
		}
		out = append(out, v)
	}
	return out
}

// flows are those of the batch's rows.
func (b *batch) flows() []ID {
	out := make([]ID, 0, 4)
	for _, r := range b.rows {
		if !slices.Contains(out, r.Flow) {
			out = append(out, r.Flow)
		}
	}
	return out
}

// CancelEach is Cancel with a verdict for each.
func CancelEach(ctx context.Context, tx Tx, ids []ID, as State) (Outcome, []Verdict, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("cancel: %w", err)
	}
	verdicts := b.each(ids, func(r *Row) string {
		if r.State.Final() {
			return "it has ended: " + string(r.State)
		}
		b.cancel(r, as)
		return ""
	})
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, nil, fmt.Errorf("cancel: %w", err)
	}
	return b.out, verdicts, nil
}

// split tells orders to end and orders to pause apart.
func split(orders []CancelOrder) (told []CancelOrder, hushed []ID) {
	for _, o := range orders {
		if o.As == "" {
			hushed = append(hushed, o.Execution)
		} else {
			told = append(told, o)
		}
	}
	return told, hushed
}

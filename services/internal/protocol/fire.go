package protocol

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Fires: an instant of a schedule starts an execution at most once, whoever leads and whatever becomes of commits. What a leader wants is made beforehand (which instants are due,
// the executions of each), and judged here, in one transaction, against what is there:
//
//	the term      nobody's but the newest leader's: a leader of the past, with an old idea of what is due, writes nothing
//	the schedule  locked; a plan that was made for it as it was before (other due, other revision, paused, gone) is dropped
//	the fire      a row for (schedule, instant) that is there already starts nothing
//	the overlap   executions of the schedule that are not final
//
// Then the fires, their executions and the schedule's next instant are written together. Schedules are locked before executions, and nobody locks them the other way round.

// ErrFenced says that a newer term has begun: what was to be written for an older one was not.
var ErrFenced = errors.New("a newer term has begun: another orchestrator leads now")

// What became of a fire.
const (
	FireStarted = "started"
	FireSkipped = "skipped" // by the overlap policy
	FireMissed  = "missed"  // by the catch-up policy: it stands for all that were missed up to it
	FireRefused = "refused" // the flow could not be started
)

// Overlap policies.
const (
	OverlapAllow  = "allow"
	OverlapSkip   = "skip"
	OverlapCancel = "cancel"
)

// Schedule is the part of a schedule that the rules read and write.
type Schedule struct {
	ID       ID
	Revision int
	Paused   bool
	Overlap  string
	Due      time.Time // the next instant that nobody has decided on; zero: none
}

// Fire is what is recorded of one instant of a schedule.
type Fire struct {
	Schedule  ID
	Due       time.Time
	Execution ID // that it started; zero: none
	Outcome   string
	Reason    string
	Missed    int // instants before it that were missed and that it stands for
	Term      int64
}

// FirePlan is what a leader wants of one schedule, as it was when the leader read it.
type FirePlan struct {
	Schedule ID
	Revision int
	Due      time.Time
	Fires    []Fire    // oldest first; those with an execution want to start it
	Next     time.Time // zero: no more
}

// FireTx is a transaction that fires.
type FireTx interface {
	Tx
	// HoldTerm gives the newest term, and holds off newer ones until the transaction has ended.
	HoldTerm(ctx context.Context) (int64, error)
	// LockSchedules locks schedules in the order of their ids, and returns those that exist.
	LockSchedules(ctx context.Context, ids []ID) ([]Schedule, error)
	// Fired gives those of the fires that are there already, by schedule and instant, with their executions, whoever made them.
	Fired(ctx context.Context, fires []Fire) ([]Fire, error)
	// Unfinished lists, by schedule, the executions of its latest fires that are not final.
	Unfinished(ctx context.Context, schedules []ID) (map[ID][]ID, error)
	// Fire inserts the fires (one that is there without an execution is replaced), and the executions of those that have one. Their rows were given to the transaction when it was made.
	Fire(ctx context.Context, fires []Fire) error
	// Move writes what is due next.
	Move(ctx context.Context, schedules []Schedule) error
}

// FireDue fires what is due under the leader's term. Dropped tells how many plans no longer fit their schedules: the next look makes them anew.
func FireDue(ctx context.Context, tx FireTx, term int64, plans []FirePlan) (out Outcome, done []Fire, dropped int, err error) {
	fail := func(err error) (Outcome, []Fire, int, error) {
		return Outcome{}, nil, 0, fmt.Errorf("fire: %w", err)
	}
	newest, err := tx.HoldTerm(ctx)
	if err != nil {
		return fail(err)
	}
	if newest != term {
		return fail(fmt.Errorf("term %d, the newest is %d: %w", term, newest, ErrFenced))
	}
	ids := make([]ID, len(plans))
	for i, p := range plans {
		ids[i] = p.Schedule
	}
	rows, err := tx.LockSchedules(ctx, ids)
	if err != nil {
		return fail(err)
	}
	plans, moved, overlaps := fitting(plans, rows)
	dropped = len(ids) - len(plans)
	if plans, err = unfired(ctx, tx, plans, false); err != nil {
		return fail(err)
	}
	var running map[ID][]ID
	if len(overlaps) > 0 {
		if running, err = tx.Unfinished(ctx, overlaps); err != nil {
			return fail(err)
		}
	}
	policy := map[ID]string{}
	for _, s := range rows {
		policy[s.ID] = s.Overlap
	}
	var cancel []ID
	for _, p := range plans {
		fires, end := overlap(policy[p.Schedule], p.Fires, running[p.Schedule])
		for i := range fires {
			fires[i].Term = term
		}
		done, cancel = append(done, fires...), append(cancel, end...)
	}
	if out, err = fire(ctx, tx, done, cancel); err != nil {
		return fail(err)
	}
	if len(moved) > 0 {
		if err := tx.Move(ctx, moved); err != nil {
			return fail(err)
		}
	}
	return out, done, dropped, nil
}

// Backfill fires instants of the past that have no execution, whatever was decided on them and whatever the overlap policy, and lists those that it did.
func Backfill(ctx context.Context, tx FireTx, schedule ID, fires []Fire) (Outcome, []Fire, error) {
	fail := func(err error) (Outcome, []Fire, error) { return Outcome{}, nil, fmt.Errorf("backfill: %w", err) }
	rows, err := tx.LockSchedules(ctx, []ID{schedule})
	if err != nil || len(rows) == 0 {
		return fail(err)
	}
	plans, err := unfired(ctx, tx, []FirePlan{{Schedule: schedule, Fires: fires}}, true)
	if err != nil {
		return fail(err)
	}
	out, err := fire(ctx, tx, plans[0].Fires, nil)
	if err != nil {
		return fail(err)
	}
	return out, plans[0].Fires, nil
}

// fitting are the plans that were made for the schedules as they are, those schedules as they go on, and those of which must be known what still runs.
func fitting(plans []FirePlan, rows []Schedule) (fit []FirePlan, moved []Schedule, overlaps []ID) {
	now := make(map[ID]Schedule, len(rows))
	for _, s := range rows {
		now[s.ID] = s
	}
	for _, p := range plans {
		s, ok := now[p.Schedule]
		if !ok || s.Paused || s.Revision != p.Revision || !s.Due.Equal(p.Due) {
			continue
		}
		fit = append(fit, p)
		if s.Overlap != OverlapAllow {
			overlaps = append(overlaps, s.ID)
		}
		s.Due = p.Next
		moved = append(moved, s)
		delete(now, s.ID)
	}
	return fit, moved, overlaps
}

// unfired leaves out of plans what has been decided on; anew: only what has started an execution.
func unfired(ctx context.Context, tx FireTx, plans []FirePlan, anew bool) ([]FirePlan, error) {
	var all []Fire
	for _, p := range plans {
		all = append(all, p.Fires...)
	}
	if len(all) == 0 {
		return plans, nil
	}
	fired, err := tx.Fired(ctx, all)
	if err != nil {
		return nil, err
	}
	type instant struct {
		schedule ID
		micros   int64
	}
	there := make(map[instant]bool, len(fired))
	for _, f := range fired {
		there[instant{f.Schedule, f.Due.UnixMicro()}] = !anew || !f.Execution.IsZero()
	}
	out := make([]FirePlan, len(plans))
	for i, p := range plans {
		fires := p.Fires
		p.Fires = nil
		for _, f := range fires {
			if !there[instant{f.Schedule, f.Due.UnixMicro()}] {
				p.Fires = append(p.Fires, f)
			}
		}
		out[i] = p
	}
	return out, nil
}

// overlap applies a schedule's overlap policy to what it is about to start; end are the executions that give way.
func overlap(policy string, fires []Fire, running []ID) (out []Fire, end []ID) {
	out = make([]Fire, 0, len(fires))
	starts := 0
	for _, f := range fires {
		if !f.Execution.IsZero() {
			starts++
		}
	}
	skip := func(f Fire, format string, args ...any) Fire {
		f.Execution, f.Outcome, f.Reason = ID{}, FireSkipped, fmt.Sprintf(format, args...)
		return f
	}
	for _, f := range fires {
		if !f.Execution.IsZero() {
			starts--
			switch {
			case policy == OverlapSkip && len(running) > 0:
				f = skip(f, "the execution %s of this schedule is not over yet, and overlap is skip", running[0])
			case policy == OverlapSkip:
				running = []ID{f.Execution}
			case policy == OverlapCancel && starts > 0:
				f = skip(f, "a later instant was due at the same time, and overlap is cancel")
			case policy == OverlapCancel:
				end = running
			}
		}
		out = append(out, f)
	}
	return out, end
}

// fire writes fires with their executions, and cancels those that give way.
func fire(ctx context.Context, tx FireTx, fires []Fire, cancel []ID) (Outcome, error) {
	var out Outcome
	var err error
	if len(cancel) > 0 {
		if out, err = Cancel(ctx, tx, cancel, Cancelled); err != nil {
			return Outcome{}, err
		}
	}
	if len(fires) == 0 {
		return out, nil
	}
	if err := tx.Fire(ctx, fires); err != nil {
		return Outcome{}, err
	}
	for _, f := range fires {
		if !f.Execution.IsZero() {
			out.HandOut = append(out.HandOut, f.Execution)
		}
	}
	return out, nil
}

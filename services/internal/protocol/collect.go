package protocol

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// TaskPublisher hands tasks to the broker.
type TaskPublisher interface {
	// PublishTasks publishes (mandatory, with confirms) and tells for each task whether the broker has it. false is "not known".
	PublishTasks(ctx context.Context, tasks []Task) []bool
}

// HandOut publishes the tasks of queued executions and marks what the broker has confirmed [1, 12]. Whoever commits `queued` calls it after
// COMMIT; it may be called for any ids at any time.
func HandOut(ctx context.Context, st Store, pub TaskPublisher, ids []ID) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	tasks, err := st.Tasks(ctx, ids)
	if err != nil {
		return 0, fmt.Errorf("hand out: %w", err)
	}
	if len(tasks) == 0 {
		return 0, nil
	}
	handed := make([]Handed, 0, len(tasks))
	for i, ok := range pub.PublishTasks(ctx, tasks) {
		if ok {
			handed = append(handed, Handed{ID: tasks[i].ID, Attempt: tasks[i].Attempt})
		}
	}
	if err := st.MarkHanded(ctx, handed); err != nil {
		return len(handed), fmt.Errorf("hand out: mark: %w", err)
	}
	return len(handed), nil
}

// ErrComeBack says that the batch was not applied and that its channel must be closed, so that the broker delivers it again, in order,
// with what was confirmed before it.
var ErrComeBack = errors.New("a confirmed report is missing before one of this batch: close the channel and take the queue again")

// errBehind rolls the transaction of such a batch back.
var errBehind = errors.New("behind")

// Collector applies the reports of one shard, batch after batch, in order [6]. One at a time may be active for a shard, but nothing breaks
// when two are: each report is compared with its row.
type Collector struct {
	Shard int
	Store Store

	behind map[ID]bool // executions that were behind at the last batch
}

// Apply applies the entries of a batch, in their order, and returns what is left to do after COMMIT: hand out, then tell the news, then
// acknowledge. ErrComeBack: close the channel instead. Any other error: nothing is known to be written; don't acknowledge.
func (c *Collector) Apply(ctx context.Context, entries []Entry) (Outcome, error) {
	out, err := c.apply(ctx, entries, false)
	if !errors.Is(err, errBehind) {
		if err == nil {
			clear(c.behind)
		}
		return out, err
	}
	again := false
	for _, id := range out.Behind {
		again = again || c.behind[id]
	}
	if !again { // the first time: the report before it may come with the next channel
		if c.behind == nil {
			c.behind = map[ID]bool{}
		}
		for _, id := range out.Behind {
			c.behind[id] = true
		}
		return out, ErrComeBack
	}
	out, err = c.apply(ctx, entries, true)
	if err == nil {
		clear(c.behind)
	}
	return out, err
}

// apply runs one transaction; where the database refuses a value, halves of the batch take it, until the one entry that carries it is parked.
func (c *Collector) apply(ctx context.Context, entries []Entry, park bool) (Outcome, error) {
	var out Outcome
	err := c.Store.Txn(ctx, "collect", func(tx Tx) error {
		var err error
		out, err = ApplyReports(ctx, tx, c.Shard, entries, park)
		return err
	})
	if !errors.Is(err, ErrData) {
		return out, err
	}
	if len(entries) == 1 {
		return c.refuse(ctx, entries[0], err)
	}
	mid := len(entries) / 2
	first, err := c.apply(ctx, entries[:mid], park)
	if err != nil {
		return first, err
	}
	second, err := c.apply(ctx, entries[mid:], park)
	return Outcome{
		HandOut: append(first.HandOut, second.HandOut...),
		News:    append(first.News, second.News...),
		Told:    append(first.Told, second.Told...),
		Mail:    append(first.Mail, second.Mail...),
		Hushed:  append(first.Hushed, second.Hushed...),
		Behind:  append(first.Behind, second.Behind...),
		Parked:  first.Parked + second.Parked,
		Freed:   append(first.Freed, second.Freed...),
	}, err
}

// refuse fails the execution whose report holds a value that the database refuses: without the value it could never go on.
func (c *Collector) refuse(ctx context.Context, e Entry, cause error) (Outcome, error) {
	var out Outcome
	err := c.Store.Txn(ctx, "refuse", func(tx Tx) error {
		b, err := lock(ctx, tx, []ID{e.Execution})
		if err != nil {
			return err
		}
		b.park(&e, "refused-value", fmt.Sprintf("the database refuses a value of this report (%v)", cause))
		if r, ok := b.rows[e.Execution]; ok && r.judge(&e) != oldNews {
			bare := e
			bare.Kind, bare.State, bare.Output, bare.OutputRef, bare.Events, bare.Logs = EntryFinal, Failed, nil, nil, nil, nil
			bare.Error = refusedValue()
			b.take(r, r.apply(&bare, b.now))
			b.changes.Closed = append(b.changes.Closed, r.ID)
		}
		err = b.write(ctx, tx)
		out = b.out
		return err
	})
	return out, err
}

// Leader-only loops, one step each. They hold no lock and need no fence: all that they write is compare-and-set [13].

// Reconciler publishes what was committed as queued and never handed out [12], wakes what is due [7], and flags what is past its deadline [8].
type Reconciler struct {
	Store     Store
	Publisher TaskPublisher
	Age       time.Duration // how long a row must have been queued (the database's clock); default 2 s
	Limit     int           // rows a step; default 500
}

func (r *Reconciler) limit() int {
	if r.Limit > 0 {
		return r.Limit
	}
	return 500
}

// Unhanded publishes rows that are queued with handed < attempt; it returns how many the broker has confirmed.
func (r *Reconciler) Unhanded(ctx context.Context) (int, error) {
	age := r.Age
	if age == 0 {
		age = 2 * time.Second
	}
	ids, err := r.Store.Unhanded(ctx, age, r.limit())
	if err != nil {
		return 0, fmt.Errorf("reconcile: %w", err)
	}
	return HandOut(ctx, r.Store, r.Publisher, ids)
}

// Due wakes the executions whose waits are due now and hands them out. next is how long from now the next wait that it saw within
// the horizon comes due; zero when it saw none.
func (r *Reconciler) Due(ctx context.Context, horizon time.Duration) (out Outcome, next time.Duration, err error) {
	waits, now, err := r.Store.DueWaits(ctx, horizon, r.limit())
	if err != nil {
		return out, 0, fmt.Errorf("timers: %w", err)
	}
	var ids []ID
	for _, w := range waits {
		if w.Due.After(now) {
			next = w.Due.Sub(now)
			break
		}
		ids = append(ids, w.Execution)
	}
	if len(ids) == 0 {
		return out, next, nil
	}
	err = r.Store.Txn(ctx, "timers", func(tx Tx) error {
		var err error
		out, err = WakeDue(ctx, tx, ids)
		return err
	})
	if err != nil {
		return Outcome{}, 0, fmt.Errorf("timers: %w", err)
	}
	_, err = HandOut(ctx, r.Store, r.Publisher, out.HandOut)
	return out, next, err
}

// Overdue ends executions past their deadline: at once where nobody owns them, else through their owner.
func (r *Reconciler) Overdue(ctx context.Context) (Outcome, error) {
	ids, err := r.Store.Overdue(ctx, r.limit())
	if err != nil || len(ids) == 0 {
		return Outcome{}, err
	}
	var out Outcome
	err = r.Store.Txn(ctx, "deadlines", func(tx Tx) error {
		var err error
		out, err = Cancel(ctx, tx, ids, TimedOut)
		return err
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("deadlines: %w", err)
	}
	_, err = HandOut(ctx, r.Store, r.Publisher, out.HandOut) // those that have something to undo
	return out, err
}

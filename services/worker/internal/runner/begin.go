package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// returnsLimit is how often a task goes through the retry ladder for want of its flow's version before it is given up.
const returnsLimit = 20

// suspectPatience is how long a suspect waits for other runs to end; then they hand back what they have left, which counts as no death.
const suspectPatience = 30 * time.Second

// DeadLetter is what can't be processed, with the reason.
type DeadLetter struct {
	protocol.DeadLetter
}

// begin works on a delivery, for which a slot was taken. The slot is given back by forget, or here.
func (r *Runner) begin(d Delivery) {
	var task protocol.Task
	err := json.Unmarshal(d.Body, &task)
	if err != nil || task.V != protocol.SchemaVersion {
		r.unreadable(d, err)
		return
	}
	v := Version{Flow: task.Flow, Number: task.Version}
	program, ok := r.programs.get(r.ctx, v, func(p *flow.Program, err error) {
		if err != nil {
			r.noProgram(d, &task, err)
			return
		}
		r.prepare(d, &task, p)
	})
	if ok {
		r.prepare(d, &task, program)
	}
}

// prepare makes the run and starts it; a suspect waits until nothing else runs.
func (r *Runner) prepare(d Delivery, task *protocol.Task, p *flow.Program) {
	t, err := r.newRun(d, task, p)
	switch {
	case errors.Is(err, errFetch) && !errors.Is(err, ErrNoValue):
		r.log.Warn("a large value can't be read now: its task comes back later", "error", err, "execution", task.ID.String())
		r.handBack(d, d.Returns, "no-value")
		return
	case err != nil:
		r.fail(d, task, "unrunnable", err)
		return
	}
	if !task.Suspect {
		r.launch(t)
		return
	}
	r.metrics.suspects.Inc()
	if r.intake.park(d, func() { r.launch(t) }) {
		r.log.Info("an execution whose workers died waits until it can run alone", "execution", t.text)
		time.AfterFunc(suspectPatience, func() { r.makeRoom(t) })
	}
}

// makeRoom lets the others hand back what they have, if the suspect hasn't begun.
func (r *Runner) makeRoom(suspect *run) {
	r.mu.Lock()
	_, begun := r.runs[suspect.machine.Number()]
	r.mu.Unlock()
	if !begun && r.intake.crowded() {
		r.tellAll(news{kind: newsDrain})
	}
}

func (r *Runner) newRun(d Delivery, task *protocol.Task, p *flow.Program) (made *run, err error) {
	t := &run{r: r, delivery: d, shard: task.Shard, id: task.ID, text: task.ID.String(), attempt: task.Attempt, busy: true}
	t.delivery.Body = nil // the broker's frame needn't live as long as the run
	defer func() {
		if err != nil {
			r.memory.leave(t)
		}
	}()
	fetch := func(v protocol.Value) (json.RawMessage, error) {
		if !task.Suspect { // it runs alone; waiting for that with a share that others wait for would be for ever
			if err := r.memory.take(r.patience, t, fetchedTimes*v.Size); err != nil {
				return nil, fmt.Errorf("%w: there is no memory for it: %w", errFetch, err)
			}
		}
		raw, err := r.values.fetch(r.patience, task.ID, v.Ref)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errFetch, err)
		}
		t.addStored(v.Ref)
		return raw, nil
	}
	raw := task.Input
	if task.InputRef != nil {
		var err error
		if raw, err = fetch(*task.InputRef); err != nil {
			return nil, fmt.Errorf("the input: %w", err)
		}
	}
	var input any
	if len(raw) > 0 {
		v, err := flow.DecodeValue(raw)
		if err != nil {
			return nil, fmt.Errorf("the input can't be read: %w", err)
		}
		input = v
	}
	events, err := protocol.ResolveEvents(task.Steps, fetch)
	if err != nil {
		return nil, err
	}
	for _, list := range task.Steps {
		t.inlineTask += len(list)
	}
	record := flow.Record{
		Execution: flow.ExecutionView{ID: t.text, CreatedAt: task.CreatedAt, Trigger: task.Trigger, Labels: task.Labels, Priority: task.Priority},
		Input:     input, Deadline: task.Deadline,
	}
	head := *task
	head.Input, head.Steps = nil, nil // the state has them now
	t.machine, err = protocol.NewRun(head, p, record, events, r.numbers.Add(1), d.Redelivered)
	return t, err
}

// fetchedTimes is how much of the budget of memory a value takes that was stored apart: its bytes, their copy that texts are cut from, and what is built around them.
const fetchedTimes = 3

// errFetch says that a value that the task only names could not be had.
var errFetch = errors.New("a value that is stored apart can't be read")

// unreadable takes what is no task of this version.
func (r *Runner) unreadable(d Delivery, err error) {
	var head struct {
		V  int         `json:"v"`
		ID protocol.ID `json:"id"`
	}
	headErr := json.Unmarshal(d.Body, &head)
	if headErr == nil && head.V > protocol.SchemaVersion {
		r.log.Warn("a task of a newer schema goes back: this worker is older than who sent it", "schema", head.V, "execution", head.ID.String())
		r.handBack(d, d.Returns, "schema")
		return
	}
	if err == nil {
		err = fmt.Errorf("schema version %d is none", head.V)
	}
	r.settle(d, "unparseable", func(ctx context.Context) error {
		return r.opts.Publisher.Dead(ctx, r.letter(d, head.ID, "unparseable", err))
	})
}

// noProgram takes a task whose flow version could not be had.
func (r *Runner) noProgram(d Delivery, task *protocol.Task, err error) {
	known := errors.Is(err, ErrNoVersion) || errors.Is(err, ErrUnfit)
	if known && d.Returns >= returnsLimit {
		reason := "version-not-found"
		if errors.Is(err, ErrUnfit) {
			reason = "version-unfit"
		}
		r.fail(d, task, reason, err)
		return
	}
	returns := d.Returns
	if known { // the database being away is no fault of the task: it isn't counted
		returns++
	}
	if returns <= 1 {
		r.log.Warn("a flow's version can't be had now: its task comes back later", "error", err, "execution", task.ID.String(), "returns", returns)
	}
	r.handBack(d, returns, "no-version")
}

// fail parks a task that can't be run, and ends its execution: every accepted execution ends. Delivered again it says the same, to the byte.
func (r *Runner) fail(d Delivery, task *protocol.Task, reason string, err error) {
	failed := &flow.Failure{Code: reason, Message: clean(err.Error())}
	entry := &protocol.Entry{
		Kind: protocol.EntryFinal, Execution: task.ID, Attempt: task.Attempt, Seq: 1, State: protocol.Failed, Error: failed, Started: cmp.Or(d.At, r.now()), Parent: task.Parent,
	}
	body, encErr := json.Marshal(protocol.Report{V: protocol.SchemaVersion, Shard: task.Shard, Entries: []protocol.Entry{*entry}})
	if encErr != nil {
		r.log.Error("a report can't be written as JSON", "error", encErr)
	}
	r.settle(d, reason, func(ctx context.Context) error {
		if err := r.opts.Publisher.Dead(ctx, r.letter(d, task.ID, reason, err)); err != nil {
			return err
		}
		done := make(chan error, 1)
		r.opts.Publisher.Report(ctx, task.Shard, body, func(err error) { done <- err })
		return <-done
	})
}

func (r *Runner) letter(d Delivery, id protocol.ID, reason string, err error) DeadLetter {
	r.log.Error("a task is parked in the dead letters", "reason", reason, "error", err, "execution", id.String())
	return DeadLetter{protocol.DeadLetter{
		ID: protocol.LetterID(d.At, d.ID, reason), Kind: "task", Reason: reason, Detail: clean(err.Error()), Origin: r.opts.Worker + " " + d.Priority.String(), Execution: id, Body: d.Body, Count: d.Returns + 1, At: r.now(),
	}}
}

// handBack sends a task through the retry ladder.
func (r *Runner) handBack(d Delivery, returns int, reason string) {
	r.settle(d, reason, func(ctx context.Context) error { return r.opts.Publisher.Retry(ctx, d, returns) })
}

// settle publishes, in a goroutine of its own, until the broker has confirmed; then the delivery is acknowledged and the slot free. It gives up when
// the delivery's channel is gone: the broker delivers it again.
func (r *Runner) settle(d Delivery, reason string, publish func(context.Context) error) {
	go func() {
		defer r.intake.release()
		for tries := 0; !d.Receipt.Gone(); tries++ {
			err := publish(r.ctx)
			if err == nil {
				r.metrics.returned.WithLabelValues(reason).Inc()
				d.Receipt.Ack()
				return
			}
			r.log.Warn("the broker doesn't take a task that is handed on: trying again", "error", err, "reason", reason)
			if !rest(r.ctx, jitter(min(100*time.Millisecond<<min(tries, 6), 5*time.Second))) {
				return
			}
		}
	}()
}

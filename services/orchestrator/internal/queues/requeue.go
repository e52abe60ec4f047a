package queues

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Requeue brings dead letters back that people have asked for. It needs no fence: an execution is handed out again in the transaction that finishes its letter; a
// message that is published twice is, by the protocol, as good as one.
type Requeue struct {
	Store     *store.DB
	Publisher *Publisher
	// Follow takes what a commit leaves to be done.
	Follow func(protocol.Outcome)
	Log    *slog.Logger
}

// requeueBatch is how many letters one step brings back.
const requeueBatch = 500

// Step brings back what was asked for, and tells how many it has looked at.
func (r *Requeue) Step(ctx context.Context) (int, error) {
	letters, err := r.Store.AskedLetters(ctx, requeueBatch)
	if err != nil {
		return 0, err
	}
	for i := range letters {
		if err := r.one(ctx, &letters[i]); err != nil {
			return i, fmt.Errorf("requeue of dead letter %s: %w", letters[i].ID, err)
		}
	}
	return len(letters), nil
}

// one brings one letter back. An error means: not now.
func (r *Requeue) one(ctx context.Context, l *store.Letter) error {
	if !l.Execution.IsZero() && l.EditedBy == "" && l.Kind != "report" {
		out, outcome, err := r.Store.RequeueExecution(ctx, l.ID, l.Execution)
		if err != nil {
			return err
		}
		r.Follow(out)
		r.Log.Info("a dead letter is brought back", "letter", l.ID, "execution", l.Execution, "by", l.AskedBy, "outcome", outcome)
		return nil
	}
	m, refused := message(l, func(id protocol.ID) (int, error) { return r.Store.ShardOf(ctx, id) })
	if refused != nil {
		var away *lookError
		if errors.As(refused, &away) {
			return away.error
		}
		return r.Store.FinishLetter(ctx, l.ID, "refused: "+refused.Error(), false)
	}
	if err := r.Publisher.Broker.PublishWait(ctx, m); err != nil {
		return err
	}
	r.Log.Info("a dead letter is published again", "letter", l.ID, "key", m.Key, "by", l.AskedBy)
	return r.Store.FinishLetter(ctx, l.ID, "requeued: published to "+m.Key, true)
}

// lookError is a look at the database that failed: no judgement of the letter.
type lookError struct{ error }

// message makes the message that brings a letter back to its queue, or says why there is none.
func message(l *store.Letter, shardOf func(protocol.ID) (int, error)) (broker.Message, error) {
	if l.Kind == "report" {
		return report(l, shardOf)
	}
	key := ""
	for line := range broker.Tasks(l.Body) { // a message may carry several
		var t protocol.Task
		if err := json.Unmarshal(line, &t); err != nil {
			return broker.Message{}, fmt.Errorf("its body is no task (%w): edit it, or start the flow again", err)
		}
		switch {
		case t.V < 1 || t.V > protocol.SchemaVersion:
			return broker.Message{}, fmt.Errorf("its body has the schema version %d, and this platform knows 1 to %d", t.V, protocol.SchemaVersion)
		case t.ID.IsZero() || t.Attempt < 1:
			return broker.Message{}, errors.New("its body names no execution (id, attempt)")
		}
		key = broker.TaskKey(cmp.Or(t.Pool, DefaultPool), cmp.Or(t.Priority, broker.DefaultPriority))
	}
	return broker.Message{Key: key, ID: l.ID.String(), Type: "task", Body: l.Body}, nil
}

// report makes a report of a letter's body, which is one, or a single entry of one.
func report(l *store.Letter, shardOf func(protocol.ID) (int, error)) (broker.Message, error) {
	var r protocol.Report
	if json.Unmarshal(l.Body, &r) == nil && len(r.Entries) > 0 {
		if r.V < 1 || r.V > protocol.SchemaVersion {
			return broker.Message{}, fmt.Errorf("its body has the schema version %d, and this platform knows 1 to %d", r.V, protocol.SchemaVersion)
		}
	} else {
		var e protocol.Entry
		if err := json.Unmarshal(l.Body, &e); err != nil {
			return broker.Message{}, fmt.Errorf("its body is no report (%w): edit it, or retry the execution", err)
		}
		if e.Kind == "" || e.Execution.IsZero() {
			return broker.Message{}, errors.New("its body is neither a report nor an entry of one")
		}
		r = protocol.Report{V: protocol.SchemaVersion, Entries: []protocol.Entry{e}}
	}
	shard, err := shardOf(r.Entries[0].Execution)
	if errors.Is(err, store.ErrNotFound) {
		return broker.Message{}, errors.New("no execution has the id that it names")
	}
	if err != nil {
		return broker.Message{}, &lookError{err}
	}
	r.Shard = shard
	body, err := json.Marshal(r)
	if err != nil {
		return broker.Message{}, err
	}
	return broker.Message{Key: broker.ReportKey(shard), ID: l.ID.String(), Type: "report", Body: body}, nil
}

package queues

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
)

// DeadLetters moves what lies in the broker's dead letter queue into its table, where people see it.
type DeadLetters struct {
	Conn *broker.Conn
	// Insert stores letters; one that is there already (by id) is left as it is.
	Insert func(ctx context.Context, letters []protocol.DeadLetter) error
	// Moved hears how many were moved.
	Moved func(n int)
	Log   *slog.Logger
}

const (
	deadPrefetch = 200
	deadWindow   = 20 * time.Millisecond
)

// Run moves until ctx ends. A letter is acknowledged when it is stored; a database that is away is waited for.
func (d *DeadLetters) Run(ctx context.Context) {
	consumer := d.Conn.Consume(broker.ConsumeOptions{Queue: broker.DeadQueue, Prefetch: deadPrefetch})
	defer func() {
		stop, cancel := context.WithTimeout(context.Background(), closeBound)
		defer cancel()
		if err := consumer.Stop(stop); err != nil {
			d.Log.Debug("stopping the consumer of dead letters", "error", err)
		}
	}()
	pause := 100 * time.Millisecond
	for {
		batch := gather(ctx, consumer.Deliveries())
		if len(batch) == 0 {
			return
		}
		letters := make([]protocol.DeadLetter, len(batch))
		for i := range batch {
			letters[i] = Letter(&batch[i])
		}
		for {
			err := d.Insert(ctx, letters)
			if err == nil {
				pause = 100 * time.Millisecond
				break
			}
			if ctx.Err() != nil {
				return
			}
			d.Log.Warn("dead letters can't be stored: trying again", "letters", len(letters), "error", err)
			select {
			case <-time.After(pause/2 + rand.N(pause/2)):
				pause = min(2*pause, 5*time.Second)
			case <-ctx.Done():
				return
			}
		}
		for i := range batch { // one by one: they may be of two channels, and are few
			batch[i].Ack()
		}
		d.Moved(len(batch))
	}
}

// gather waits for a delivery and takes what comes with it. Empty: ctx has ended, or the deliveries have.
func gather(ctx context.Context, in <-chan broker.Delivery) []broker.Delivery {
	var batch []broker.Delivery
	select {
	case d, ok := <-in:
		if !ok {
			return nil
		}
		batch = append(batch, d)
	case <-ctx.Done():
		return nil
	}
	window := time.NewTimer(deadWindow)
	defer window.Stop()
	for len(batch) < deadPrefetch {
		select {
		case d, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, d)
		case <-window.C:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// Letter makes a dead letter of a message: one that a service of ours wrote stays as it is; one that the broker dead-lettered is
// wrapped, with the reason that the broker gives.
func Letter(d *broker.Delivery) protocol.DeadLetter {
	var letter protocol.DeadLetter
	if json.Unmarshal(d.Body, &letter) == nil && letter.Kind != "" && letter.Reason != "" {
		if letter.ID.IsZero() {
			letter.ID = protocol.LetterID(d.At, d.MessageID)
		}
		return letter
	}
	reason, queue := text(d.Headers["x-first-death-reason"]), text(d.Headers["x-first-death-queue"])
	if reason == "" {
		reason = "unknown"
	}
	letter = protocol.DeadLetter{
		ID: protocol.LetterID(d.At, d.MessageID, reason, queue), Kind: "task", Reason: reason, Origin: queue, Body: d.Body, Count: 1,
		Detail: fmt.Sprintf("the broker gave this message up (%s) in the queue %q", reason, queue),
	}
	var task struct {
		ID protocol.ID `json:"id"`
	}
	if json.Unmarshal(d.Body, &task) == nil {
		letter.Execution = task.ID
	}
	return letter
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

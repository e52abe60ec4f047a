package runner

import (
	"context"
	"time"
)

// Priority of a task queue; the order is that of the weights.
type Priority int

// The priorities.
const (
	High Priority = iota
	Normal
	Low
	priorities
)

// weights of the three buffers: of twelve tasks, when all three hold some.
var weights = [priorities]int{8, 3, 1}

// Names of the priorities in queue names and tasks.
func (p Priority) String() string { return [...]string{"high", "normal", "low"}[p] }

// Delivery is a task as the broker delivered it.
type Delivery struct {
	Body        []byte
	ID          string    // of the message, the same each time it is delivered; of one task among several with its place. "": its sender gave none
	At          time.Time // when the message was first published
	Redelivered bool
	Returns     int // how often it went through the retry ladder, as we counted it
	Priority    Priority
	Receipt     Receipt
}

// Receipt ties a delivery to the channel that brought it.
type Receipt interface {
	// Ack acknowledges; it does nothing when the channel is gone.
	Ack()
	// Gone tells that the channel is gone: the broker delivers the task again, to somebody.
	Gone() bool
}

// Publisher gives messages to the broker, durable and mandatory. Every call returns when the broker has confirmed, or with an error
// when it refused or the outcome is unknown: the caller publishes again.
type Publisher interface {
	// Report publishes one report message to the queue of the shard.
	Report(ctx context.Context, shard int, body []byte, done func(error))
	// Retry sends a task through the ladder, to come back later to the queue that it came from.
	Retry(ctx context.Context, d Delivery, returns int) error
	// Return gives a task back to the queue that it came from.
	Return(ctx context.Context, d Delivery) error
	// Dead parks what can't be processed.
	Dead(ctx context.Context, letter DeadLetter) error
}

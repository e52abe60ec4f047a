package broker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Priorities of tasks, the first is read most.
var Priorities = []string{"high", "normal", "low"}

// TaskQueue is where tasks of a pool and priority wait; TaskKey routes there.
func TaskQueue(pool, priority string) string { return "flow.tasks." + pool + "." + priority }

// TaskKey is the routing key of TaskQueue.
func TaskKey(pool, priority string) string { return "tasks." + pool + "." + priority }

// ReportQueue is where the reports of a shard wait; ReportKey routes there.
func ReportQueue(shard int) string { return "flow.reports." + strconv.Itoa(shard) }

// ReportKey is the routing key of ReportQueue.
func ReportKey(shard int) string { return "reports." + strconv.Itoa(shard) }

// Names of single queues and keys.
const (
	RetryQueue = "flow.retry" // tasks that can't be processed yet: they come back by their own key after RetryAfter
	DeadQueue  = "flow.dead"  // what could not be processed
	DeadKey    = "dead"
)

// RetryAfterMillis is how long a message stays in RetryQueue.
const RetryAfterMillis = 1000

// RetryExchange takes messages for RetryQueue under the key by which they shall come back.
func RetryExchange(exchange string) string { return exchange + ".retry" }

// ControlQueue is a process's own queue for control messages, HeartbeatQueue for health reports. Both are exclusive and die with their connection.
func ControlQueue(process string) string { return "flow.control." + process }

// HeartbeatQueue is a process's own queue for health reports.
func HeartbeatQueue(process string) string { return "flow.heartbeats." + process }

// Keys and bindings of control messages and health reports.
const (
	ControlBinding   = "control.#"
	HeartbeatBinding = "heartbeat.#"
)

// ControlKey routes a control message about a subject, HeartbeatKey a worker's health report.
func ControlKey(subject string) string { return "control." + subject }

// HeartbeatKey is the routing key of a worker's health report.
func HeartbeatKey(worker string) string { return "heartbeat." + worker }

// Exchange is one to declare.
type Exchange struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// Queue is one to declare, with its binding. Arguments are frozen for a name: a change is a new name (x.v2) and a drain of the old one.
type Queue struct {
	Name     string     `json:"name"`
	Args     amqp.Table `json:"arguments"`
	Exchange string     `json:"exchange"`
	Key      string     `json:"key"`
}

// Topology is everything that is declared before work begins.
type Topology struct {
	Exchanges []Exchange `json:"exchanges"`
	Queues    []Queue    `json:"queues"`
}

// NewTopology gives the topology for a server of the version (major.minor…).
func NewTopology(exchange string, pools []string, shards int, version string) Topology {
	arguments := func(more amqp.Table) amqp.Table {
		args := amqp.Table{"x-queue-type": "quorum"}
		if major(version) >= 4 {
			// 4.0 gives every quorum queue a limit of 20 deliveries; ours are counted by us. 3.x has none unless asked, and would take -1 for 0.
			args["x-delivery-limit"] = int32(-1)
		}
		for k, v := range more {
			args[k] = v
		}
		return args
	}
	// At-least-once dead-lettering needs both arguments, else it falls back to at-most-once in silence.
	deadLetters := amqp.Table{"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": DeadKey, "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
	t := Topology{Exchanges: []Exchange{{exchange, amqp.ExchangeTopic}, {RetryExchange(exchange), amqp.ExchangeTopic}}}
	add := func(name, ex, key string, more amqp.Table) {
		t.Queues = append(t.Queues, Queue{Name: name, Args: arguments(more), Exchange: ex, Key: key})
	}
	add(DeadQueue, exchange, DeadKey, nil)
	for shard := range shards {
		add(ReportQueue(shard), exchange, ReportKey(shard), amqp.Table{"x-single-active-consumer": true})
	}
	add(RetryQueue, RetryExchange(exchange), "#", amqp.Table{"x-message-ttl": int32(RetryAfterMillis), "x-dead-letter-exchange": exchange, "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"})
	for _, pool := range pools {
		for _, p := range Priorities {
			add(TaskQueue(pool, p), exchange, TaskKey(pool, p), deadLetters)
		}
	}
	return t
}

func major(version string) int {
	n, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	if err != nil {
		return 3 // a server that doesn't say is an old one
	}
	return n
}

// declare makes what is missing. A queue is looked up passively first: one that exists is taken as it is, whatever build made it, so that a release with
// other arguments does not crash at 406.
func declare(conn Connection, t Topology) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer func() { ch.Close() }()
	for _, e := range t.Exchanges {
		if err := ch.ExchangeDeclare(e.Name, e.Kind, true, false, false, false, nil); err != nil {
			return fmt.Errorf("exchange %s: %w (it exists as another kind, or the user may not declare it)", e.Name, err)
		}
	}
	for _, q := range t.Queues {
		_, err := ch.QueueDeclarePassive(q.Name, true, false, false, false, nil)
		var ae *amqp.Error
		if errors.As(err, &ae) && ae.Code == amqp.NotFound {
			if ch, err = conn.Channel(); err != nil { // a failed look closes the channel
				return err
			}
			_, err = ch.QueueDeclare(q.Name, true, false, false, false, q.Args)
		}
		if err != nil {
			return fmt.Errorf("queue %s: %w", q.Name, err)
		}
		if err := ch.QueueBind(q.Name, q.Key, q.Exchange, false, nil); err != nil {
			return fmt.Errorf("bind %s to %s: %w", q.Name, q.Key, err)
		}
	}
	return nil
}

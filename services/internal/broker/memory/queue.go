package memory

import (
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/broker"
)

// message is one in a queue.
type message struct {
	amqp.Publishing
	exchange, key string
	at            time.Time
	redelivered   bool
	number        uint64       // its place in the queue, by which it goes back there
	late          *lateConfirm // nil: it was confirmed when it came
}

// queue holds messages in their order. The server's lock guards it.
type queue struct {
	s     *Server
	name  string
	owner *connection // of an exclusive one
	auto  bool        // it goes with its last consumer

	late      bool // messages are confirmed when they are acknowledged
	single    bool // one consumer is active, the others wait their turn
	ttl       time.Duration
	deadTo    string // exchange
	deadKey   string // "": the message's own
	expiry    *time.Timer
	consumers []*consumer // the next one to be served is the first; of a single queue the first is active
	back      []*message  // returned ones, by number: before the others
	ready     []*message  // a ring would be smaller; this is shifted in large steps
	gone      int         // of ready, taken already
	next      uint64
	bytes     int
}

func newQueue(s *Server, name string, args amqp.Table) *queue {
	q := &queue{s: s, name: name}
	q.single, _ = args["x-single-active-consumer"].(bool)
	q.late = q.single || name == broker.DeadQueue
	if ms, ok := args["x-message-ttl"].(int32); ok {
		q.ttl = time.Duration(ms) * time.Millisecond
	}
	q.deadTo, _ = args["x-dead-letter-exchange"].(string)
	q.deadKey, _ = args["x-dead-letter-routing-key"].(string)
	return q
}

func (q *queue) len() int { return len(q.back) + len(q.ready) - q.gone }

// full tells whether the queue refuses a message of that size.
func (q *queue) full(size int) bool {
	return q.owner == nil && !q.single && q.bytes > 0 && q.bytes+size > maxQueueBytes
}

// push puts a new message at the end.
func (q *queue) push(m *message) {
	q.next++
	m.number = q.next
	q.bytes += len(m.Body)
	q.ready = append(q.ready, m)
	if q.owner != nil && q.len() > maxExclusiveNews {
		q.bytes -= len(q.pop().Body)
	}
	q.serve()
	q.watch()
}

// restore puts messages back that were delivered and not acknowledged, to where they came from.
func (q *queue) restore(m *message) {
	m.redelivered = true
	i := len(q.back)
	for i > 0 && q.back[i-1].number > m.number {
		i--
	}
	q.back = append(q.back, nil)
	copy(q.back[i+1:], q.back[i:])
	q.back[i] = m
}

func (q *queue) first() *message {
	switch {
	case len(q.back) > 0:
		return q.back[0]
	case len(q.ready) > q.gone:
		return q.ready[q.gone]
	}
	return nil
}

// pop takes the first message. Its bytes still count: until it is acknowledged, or dropped.
func (q *queue) pop() *message {
	if len(q.back) > 0 {
		m := q.back[0]
		q.back[0] = nil
		if q.back = q.back[1:]; len(q.back) == 0 {
			q.back = nil
		}
		return m
	}
	m := q.ready[q.gone]
	q.ready[q.gone] = nil
	q.gone++
	switch {
	case q.gone == len(q.ready):
		q.ready, q.gone = q.ready[:0], 0
		if cap(q.ready) > 4096 {
			q.ready = nil
		}
	case q.gone > 1024 && q.gone > len(q.ready)/2:
		n := copy(q.ready, q.ready[q.gone:])
		clear(q.ready[n:])
		q.ready, q.gone = q.ready[:n], 0
	}
	return m
}

// settle takes a message out of the account.
func (q *queue) settle(m *message) {
	q.bytes -= len(m.Body)
	if m.late != nil {
		m.late.settled()
		m.late = nil
	}
}

// serve delivers what can be delivered: round robin over the consumers that have room, or to the active one.
func (q *queue) serve() {
	for q.first() != nil {
		k := q.taker()
		if k == nil {
			return
		}
		k.deliver(q.pop())
	}
}

func (q *queue) taker() *consumer {
	if len(q.consumers) == 0 {
		return nil
	}
	if q.single {
		if k := q.consumers[0]; k.room() {
			return k
		}
		return nil
	}
	for range q.consumers { // whoever was asked goes to the end
		k := q.consumers[0]
		copy(q.consumers, q.consumers[1:])
		q.consumers[len(q.consumers)-1] = k
		if k.room() {
			return k
		}
	}
	return nil
}

// leave takes a consumer out; what it holds is the channel's business.
func (q *queue) leave(k *consumer) {
	for i, other := range q.consumers {
		if other == k {
			q.consumers = append(q.consumers[:i:i], q.consumers[i+1:]...)
			break
		}
	}
	if q.auto && len(q.consumers) == 0 {
		q.s.remove(q)
	}
}

// watch sets the alarm for the message that expires next. All live equally long, so that is the first; one that was returned may be late, which does no harm.
func (q *queue) watch() {
	if q.ttl <= 0 || q.expiry != nil || q.first() == nil {
		return
	}
	q.expiry = time.AfterFunc(time.Until(q.first().at.Add(q.ttl)), func() {
		q.s.mu.Lock()
		defer q.s.mu.Unlock()
		if q.expiry == nil { // the queue is gone
			return
		}
		q.expiry = nil
		q.expire()
		q.watch()
	})
}

// expire gives messages that are too old to the exchange of dead letters. One that finds no room there stays and is tried again: at least once, as RabbitMQ with
// x-dead-letter-strategy.
func (q *queue) expire() {
	for m := q.first(); m != nil && time.Since(m.at) >= q.ttl; m = q.first() {
		if q.deadTo != "" {
			key := q.deadKey
			if key == "" {
				key = m.key
			}
			dead := m.Publishing
			dead.Headers = amqp.Table{}
			for name, v := range m.Headers {
				dead.Headers[name] = v
			}
			if _, died := dead.Headers["x-first-death-queue"]; !died {
				dead.Headers["x-first-death-reason"], dead.Headers["x-first-death-queue"], dead.Headers["x-first-death-exchange"] = "expired", q.name, m.exchange
			}
			if routed, refused, _, err := q.s.accept(q.deadTo, key, dead, nil); err != nil || !routed || refused {
				m.at = time.Now()
				return
			}
		}
		q.settle(q.pop())
	}
}

// drop forgets all messages.
func (q *queue) drop() {
	q.back, q.ready, q.gone, q.bytes = nil, nil, 0, 0
	if q.expiry != nil {
		q.expiry.Stop()
		q.expiry = nil
	}
}

// topicMatch tells whether a routing key fits a pattern: words between dots, * is one word, # any number of them.
func topicMatch(pattern, key string) bool {
	if pattern == key || pattern == "#" {
		return true
	}
	return wordsMatch(strings.Split(pattern, "."), strings.Split(key, "."))
}

func wordsMatch(pattern, key []string) bool {
	for i, word := range pattern {
		switch {
		case word == "#":
			for rest := i; rest <= len(key); rest++ {
				if wordsMatch(pattern[i+1:], key[rest:]) {
					return true
				}
			}
			return false
		case i >= len(key) || word != "*" && word != key[i]:
			return false
		}
	}
	return len(pattern) == len(key)
}

// Package memory is a broker in this process: as much of RabbitMQ as package broker uses, for `flowctl dev` and its tests. It is a broker.Server, under the same
// Conn, Publisher and Consumer, and passes the same suite (package brokertest).
//
// What it does as RabbitMQ does: topic exchanges, confirms, mandatory messages that come back, prefetch for each consumer, single active consumers, redelivery in
// order, with the mark, of what a closed channel held, exclusive queues that die with their connection, messages that expire into another exchange.
//
// What it does not: it keeps nothing. What was in it when the process ended is gone, so it confirms later than RabbitMQ: a report (and a dead letter) when its consumer
// has acknowledged it, which is after the commit. So here, too, what was confirmed never runs again. Tasks are confirmed at once: they are invitations, and whoever
// begins on an empty broker tells the rows so (store.ForgetHanded).
//
// It is bounded: a queue takes up to maxQueueBytes and refuses the rest (what refuses is told, as by x-overflow: reject-publish). Reports are the exception: there are no
// more of them than executions run, and a worker that can't report can't end anything.
package memory

import (
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/broker"
)

// Bounds of a queue. An exclusive one (control messages, health reports: news, no work) forgets its oldest message instead of refusing.
const (
	maxQueueBytes    = 64 << 20
	maxExclusiveNews = 10_000
)

// version is what the server says of itself: that of a RabbitMQ whose topology it understands.
const version = "3.10"

var errClosed = errors.New("the broker of this process is closed")

// Server is a broker. The zero value has no queues and is ready.
type Server struct {
	mu          sync.Mutex
	closed      bool
	exchanges   map[string]*exchange
	queues      map[string]*queue
	connections map[*connection]bool
}

var _ broker.Server = (*Server)(nil)

// New makes an empty broker.
func New() *Server {
	return &Server{exchanges: map[string]*exchange{}, queues: map[string]*queue{}, connections: map[*connection]bool{}}
}

// Connect makes a connection.
func (s *Server) Connect(string) (broker.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	c := &connection{s: s, channels: map[*channel]bool{}}
	s.connections[c] = true
	return c, nil
}

// Close ends all connections and forgets all messages. Nobody connects again.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.sever()
	for _, q := range s.queues {
		q.drop()
	}
	clear(s.queues)
}

// Sever cuts every connection, for tests: clients come back by themselves.
func (s *Server) Sever() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sever()
}

func (s *Server) sever() {
	for c := range s.connections {
		c.end(&amqp.Error{Code: amqp.ConnectionForced, Reason: "CONNECTION_FORCED - the broker cut it", Server: true})
	}
}

// exchange routes by topic.
type exchange struct {
	bindings []binding
}

type binding struct {
	pattern string
	queue   *queue
}

// route gives the queues that a key leads to, each once.
func (s *Server) route(name, key string) ([]*queue, error) {
	x := s.exchanges[name]
	if x == nil {
		return nil, &amqp.Error{Code: amqp.NotFound, Reason: fmt.Sprintf("NOT_FOUND - no exchange '%s'", name), Server: true}
	}
	var out []*queue
	seen := map[*queue]bool{}
	for _, b := range x.bindings {
		if !seen[b.queue] && topicMatch(b.pattern, key) {
			seen[b.queue] = true
			out = append(out, b.queue)
		}
	}
	return out, nil
}

func (s *Server) bind(exchangeName, pattern string, q *queue) error {
	x := s.exchanges[exchangeName]
	if x == nil {
		return &amqp.Error{Code: amqp.NotFound, Reason: fmt.Sprintf("NOT_FOUND - no exchange '%s'", exchangeName), Server: true}
	}
	for _, b := range x.bindings {
		if b.pattern == pattern && b.queue == q {
			return nil
		}
	}
	x.bindings = append(x.bindings, binding{pattern, q})
	return nil
}

// remove deletes a queue with its bindings.
func (s *Server) remove(q *queue) {
	q.drop()
	delete(s.queues, q.name)
	for _, x := range s.exchanges {
		kept := x.bindings[:0]
		for _, b := range x.bindings {
			if b.queue != q {
				kept = append(kept, b)
			}
		}
		clear(x.bindings[len(kept):])
		x.bindings = kept
	}
}

// accept puts a message into every queue that its key leads to, and tells what became of it: routed nowhere, or refused by one. late, if not nil, is told when the
// consumers of queues that confirm late have acknowledged it; waits tells that it will be.
func (s *Server) accept(exchangeName, key string, m amqp.Publishing, late *lateConfirm) (routed, refused, waits bool, err error) {
	queues, err := s.route(exchangeName, key)
	if err != nil || len(queues) == 0 {
		return false, false, false, err
	}
	for _, q := range queues {
		if q.full(len(m.Body)) {
			return true, true, false, nil // before any has it, so that a refusal means: nowhere
		}
		if q.late && late != nil {
			late.left++
			waits = true
		}
	}
	for _, q := range queues {
		one := &message{exchange: exchangeName, key: key, Publishing: m, at: time.Now()}
		if q.late {
			one.late = late
		}
		q.push(one)
	}
	return true, false, waits, nil
}

// lateConfirm is the confirm of a message that its consumers give.
type lateConfirm struct {
	ch   *channel
	tag  uint64
	left int
}

// settled counts one consumer that has acknowledged.
func (l *lateConfirm) settled() {
	if l.left--; l.left == 0 {
		l.ch.confirm(l.tag, true)
	}
}

// connection is one of a client's.
type connection struct {
	s        *Server
	ended    bool
	channels map[*channel]bool
	closers  []chan *amqp.Error
	alarms   []chan amqp.Blocking
}

func (c *connection) Version() string { return version }

func (c *connection) Channel() (broker.Channel, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.ended {
		return nil, amqp.ErrClosed
	}
	ch := &channel{s: c.s, c: c, consumers: map[string]*consumer{}, unacked: map[uint64]*held{}}
	c.channels[ch] = true
	return ch, nil
}

func (c *connection) NotifyClose(to chan *amqp.Error) chan *amqp.Error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.ended {
		close(to)
	} else {
		c.closers = append(c.closers, to)
	}
	return to
}

// NotifyBlocked never tells anything: queues refuse instead.
func (c *connection) NotifyBlocked(to chan amqp.Blocking) chan amqp.Blocking {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.ended {
		close(to)
	} else {
		c.alarms = append(c.alarms, to)
	}
	return to
}

func (c *connection) CloseDeadline(time.Time) error {
	c.Kill()
	return nil
}

func (c *connection) Kill() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.end(nil)
}

// end ends a connection with all that is its own; why is nil when the client asked for it. Called with the lock held.
func (c *connection) end(why *amqp.Error) {
	if c.ended {
		return
	}
	c.ended = true
	delete(c.s.connections, c)
	for ch := range c.channels {
		ch.end(why)
	}
	for _, q := range c.s.queues {
		if q.owner == c {
			c.s.remove(q)
		}
	}
	tell(c.closers, why)
	for _, to := range c.alarms {
		close(to)
	}
}

// tell tells why something was closed, if there is a reason, and closes the channels. They are buffered by one.
func tell(closers []chan *amqp.Error, why *amqp.Error) {
	for _, to := range closers {
		if why != nil {
			select {
			case to <- why:
			default:
			}
		}
		close(to)
	}
}

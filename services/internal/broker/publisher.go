package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Message is one to publish. It is persistent and mandatory.
type Message struct {
	Exchange string // "": the platform's
	Key      string
	ID       string    // for deduplication by readers; "": the publisher makes one
	At       time.Time // when it was first made; zero: now
	Type     string
	Body     []byte
	Headers  amqp.Table
}

// Outcome is what became of a message.
type Outcome int

// The outcomes.
const (
	Confirmed  Outcome = iota
	Unroutable         // no queue takes it: the topology is not there, or the pool is unknown
	Refused            // the server said no: a queue is full
	Unknown            // the connection was lost, or nothing was heard in time: it may be there
)

func (o Outcome) String() string {
	return [...]string{"confirmed", "unroutable", "refused", "unknown"}[o]
}

// confirmTimeout is how long a confirm may take before the server counts as away, unless Options say otherwise.
const confirmTimeout = 10 * time.Second

// Publisher publishes on a connection of its own, with confirms, many in flight.
type Publisher struct {
	conn  *Conn
	queue chan job
	stop  chan struct{}
	idle  chan struct{} // closed when the loop has ended
	once  sync.Once
	mu    sync.RWMutex
	ended bool

	name string // no other publisher has it
	sent uint64 // messages that it has named

	waiting atomic.Int64 // since when the server has said nothing to what is in flight, in nanoseconds since born; 0: nothing is
	born    time.Time
}

type job struct {
	m    Message
	done func(Outcome)
}

// queueDepth is how many messages may wait for the connection; beyond it Publish says ErrBusy.
const queueDepth = 16384

// NewPublisher dials a connection for publishing only.
func NewPublisher(o Options) *Publisher {
	p := &Publisher{conn: Dial(o), queue: make(chan job, queueDepth), stop: make(chan struct{}), idle: make(chan struct{}), born: time.Now(), name: rand.Text()}
	go p.run()
	return p
}

// Ready tells whether messages are taken.
func (p *Publisher) Ready() error { return p.conn.Ready() }

// Silence is how long the server has confirmed nothing though messages wait for it (the write itself may block, too); 0: none does. Ready alone doesn't
// show a server that answers nothing: the connection looks well until heartbeats or confirms are overdue.
func (p *Publisher) Silence() time.Duration {
	since := p.waiting.Load()
	if since == 0 {
		return 0
	}
	return time.Since(p.born) - time.Duration(since)
}

// Conn is the connection that it publishes on.
func (p *Publisher) Conn() *Conn { return p.conn }

// Publish queues a message. done is called exactly once, on the publisher's goroutine: it must not block. ErrBusy and ErrClosed: done is
// not called and the message was not sent. While the server is away messages wait.
func (p *Publisher) Publish(m Message, done func(Outcome)) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.ended {
		return ErrClosed
	}
	select {
	case p.queue <- job{m, done}:
		return nil
	default:
		return ErrBusy
	}
}

// PublishWait publishes and waits for the confirm. An error that isn't ErrBusy, ErrClosed, Unroutable or Refused means: not known.
func (p *Publisher) PublishWait(ctx context.Context, m Message) error {
	got := make(chan Outcome, 1)
	if err := p.Publish(m, func(o Outcome) { got <- o }); err != nil {
		return err
	}
	select {
	case o := <-got:
		if o == Confirmed {
			return nil
		}
		return fmt.Errorf("publish to %s: %s", m.Key, o)
	case <-ctx.Done():
		return fmt.Errorf("publish to %s: no confirm yet: %w", m.Key, ctx.Err())
	}
}

// Close stops taking messages, gives what is queued and in flight until ctx ends to be confirmed, and closes the connection. What is left is Unknown.
func (p *Publisher) Close(ctx context.Context) error {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.once.Do(func() { close(p.stop) })
	select {
	case <-p.idle:
	case <-ctx.Done():
		p.conn.cancel()
		<-p.idle
	}
	return p.conn.Close()
}

func (p *Publisher) run() {
	defer close(p.idle)
	for {
		l, err := p.conn.acquire(context.Background())
		if err != nil {
			p.giveUp()
			return
		}
		s, err := newSession(p, l)
		if err != nil {
			select {
			case <-l.gone:
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if done := s.serve(); done {
			return
		}
	}
}

// giveUp answers what still waits when the connection was closed.
func (p *Publisher) giveUp() {
	for {
		select {
		case j := <-p.queue:
			j.done(Unknown)
		default:
			return
		}
	}
}

// session is the publisher on one channel: messages in flight are a queue by delivery tag.
type session struct {
	p        *Publisher
	l        *link
	ch       Channel
	closed   chan *amqp.Error
	confirms chan amqp.Confirmation
	returns  chan amqp.Return
	flight   map[uint64]inFlight
	next     uint64 // tag of the next message
	oldest   uint64
	returned map[string]bool // tags of messages that came back
}

type inFlight struct {
	done func(Outcome)
	at   time.Time
}

func newSession(p *Publisher, l *link) (*session, error) {
	ch, err := l.amqp.Channel()
	if err != nil {
		return nil, err
	}
	s := &session{p: p, l: l, ch: ch, flight: map[uint64]inFlight{}, next: 1, oldest: 1, returned: map[string]bool{}}
	s.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	s.confirms = ch.NotifyPublish(make(chan amqp.Confirmation, maxInFlight+1))
	s.returns = ch.NotifyReturn(make(chan amqp.Return, maxInFlight+1))
	return s, ch.Confirm(false)
}

// maxInFlight bounds the messages that wait for a confirm; amqp091's reader must never wait for us, so the channels are as deep.
const maxInFlight = 4096

// serve publishes until the channel is lost (false) or the publisher is closed and all is answered (true).
func (s *session) serve() bool {
	defer s.end()
	p := s.p
	limit := cmp.Or(p.conn.o.ConfirmTimeout, confirmTimeout)
	tick := time.NewTicker(min(time.Second, limit/4))
	defer tick.Stop()
	stop := p.stop
	stopping := false
	for {
		queue := p.queue
		if s.l.blocked.Load() || len(s.flight) >= maxInFlight {
			queue = nil
		}
		if stopping && len(s.flight) == 0 && len(p.queue) == 0 {
			return true
		}
		select {
		case j := <-queue:
			if err := s.publish(j); err != nil {
				return false
			}
		case c, ok := <-s.confirms:
			if !ok {
				return false
			}
			s.confirm(c)
		case <-s.closed:
			return false
		case <-s.l.unblock:
		case <-stop:
			stop, stopping = nil, true
		case <-p.conn.ctx.Done():
			p.giveUp()
			return true
		case now := <-tick.C:
			if f, ok := s.flight[s.oldest]; ok && now.Sub(f.at) > limit {
				p.conn.fail(errors.New("no confirm in " + limit.String()))
				s.l.kill()
				return false
			}
		}
	}
}

func (s *session) publish(j job) error {
	tag := s.next
	s.next++
	now := time.Now()
	s.flight[tag] = inFlight{j.done, now}
	if len(s.flight) == 1 {
		s.listen()
	}
	exchange := j.m.Exchange
	if exchange == "" {
		exchange = s.p.conn.o.Exchange
	}
	if j.m.ID == "" {
		s.p.sent++
		j.m.ID = s.p.name + "." + strconv.FormatUint(s.p.sent, 10)
	}
	if j.m.At.IsZero() {
		j.m.At = now
	}
	// CorrelationId ties a returned message to its tag: basic.return names none.
	return s.ch.Publish(exchange, j.m.Key, true, false, amqp.Publishing{
		DeliveryMode: amqp.Persistent, ContentType: "application/json", MessageId: j.m.ID, Timestamp: j.m.At, Type: j.m.Type, CorrelationId: strconv.FormatUint(tag, 10), Headers: j.m.Headers, Body: j.m.Body,
	})
}

func (s *session) confirm(c amqp.Confirmation) {
	for drained := false; !drained; { // a return is on its channel before its message's confirm is on the other
		select {
		case r, ok := <-s.returns:
			if !ok { // the channel is lost: all that came back has been read
				s.returns = nil
				continue
			}
			s.returned[r.CorrelationId] = true
		default:
			drained = true
		}
	}
	f, ok := s.flight[c.DeliveryTag]
	if !ok {
		return
	}
	delete(s.flight, c.DeliveryTag)
	for s.oldest < s.next {
		if _, ok := s.flight[s.oldest]; ok {
			break
		}
		s.oldest++
	}
	s.listen()
	out := Confirmed
	if !c.Ack {
		out = Refused
	}
	if len(s.returned) > 0 {
		tag := strconv.FormatUint(c.DeliveryTag, 10)
		if s.returned[tag] {
			delete(s.returned, tag)
			out = Unroutable
		}
	}
	f.done(out)
}

// listen notes that from now on the server is to be heard, if anything is in flight.
func (s *session) listen() {
	if len(s.flight) == 0 {
		s.p.waiting.Store(0)
		return
	}
	s.p.waiting.Store(max(1, int64(time.Since(s.p.born))))
}

// end answers what was in flight when the channel went: confirms that had come are read first.
func (s *session) end() {
	go s.ch.Close()
	for {
		select {
		case c, ok := <-s.confirms:
			if ok && c.Ack {
				s.confirm(c)
				continue
			}
			if ok {
				continue // amqp091 says "not acked" for all that is open when the channel is lost: that is unknown
			}
		default:
		}
		break
	}
	for tag := s.oldest; tag < s.next; tag++ {
		if f, ok := s.flight[tag]; ok {
			f.done(Unknown)
		}
	}
	clear(s.flight)
	s.listen()
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Errors that callers branch on.
var (
	ErrClosed  = errors.New("broker: closed")
	ErrAway    = errors.New("broker: RabbitMQ is not connected")
	ErrBlocked = errors.New("broker: RabbitMQ has an alarm (memory or disk) and takes no messages")
	ErrBusy    = errors.New("broker: too many messages wait for RabbitMQ")
)

// How long the network may take.
const (
	dialTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	heartbeat    = 5 * time.Second // a frozen process is found after two: the tasks that it holds are delivered to others
	closeTimeout = time.Second
)

// Options of a connection.
type Options struct {
	URL      string // amqp://user:password@host:port/vhost
	Server   Server // nil: RabbitMQ at URL
	Exchange string // the platform's topic exchange
	Name     string // what the server shows for this connection
	Log      *slog.Logger
	// Topology, when set, is declared at each connect, before anyone uses the connection; version is the server's.
	Topology func(version string) Topology
	// ConfirmTimeout is how long a confirm may take before a publisher takes the connection for dead; default 10 s.
	ConfirmTimeout time.Duration
}

// Conn is a connection that comes back by itself, for as long as it isn't closed.
type Conn struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	link    *link
	changed chan struct{} // closed and replaced when link changes
	lastErr error
	dials   int
}

// link is one connection to the server, until it is lost.
type link struct {
	amqp    Connection
	gone    chan struct{}
	blocked atomic.Bool
	unblock chan struct{} // a token whenever an alarm ends
}

// kill ends a link whose server says nothing: amqp091's own Close waits for an answer.
func (l *link) kill() { l.amqp.Kill() }

// Dial begins to connect, and goes on until Close. It doesn't need the server to be there.
func Dial(o Options) *Conn {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Conn{o: o, ctx: ctx, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}), lastErr: ErrAway}
	go c.run()
	return c
}

func (c *Conn) dial() (*link, error) {
	l := &link{gone: make(chan struct{}), unblock: make(chan struct{}, 1)}
	server := c.o.Server
	if server == nil {
		server = rabbit{c}
	}
	conn, err := server.Connect(c.o.Name)
	if err != nil {
		return nil, err
	}
	l.amqp = conn
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	go func() {
		for b := range blocked {
			l.blocked.Store(b.Active)
			if !b.Active {
				select {
				case l.unblock <- struct{}{}:
				default:
				}
			} else {
				c.o.Log.Warn("RabbitMQ has an alarm and takes no messages: free its memory or disk", "reason", b.Reason)
			}
		}
	}()
	if c.o.Topology != nil {
		if err := declare(conn, c.o.Topology(conn.Version())); err != nil {
			l.close()
			return nil, fmt.Errorf("declare the topology: %w", err)
		}
	}
	go func() {
		if err := <-closed; err != nil {
			c.fail(err)
		}
		close(l.gone)
	}()
	return l, nil
}

func (l *link) close() {
	t := time.AfterFunc(closeTimeout, l.kill)
	defer t.Stop()
	l.amqp.CloseDeadline(time.Now().Add(closeTimeout))
	l.kill()
}

func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err
}

func (c *Conn) set(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = l
	if l != nil {
		c.dials++
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Conn) run() {
	defer close(c.done)
	said := ""
	for pause := 50 * time.Millisecond; c.ctx.Err() == nil; {
		l, err := c.dial()
		if err != nil {
			c.fail(err)
			if err.Error() != said && c.ctx.Err() == nil {
				said = err.Error()
				c.o.Log.Warn("waiting for RabbitMQ", "connection", c.o.Name, "reason", said)
			}
			select {
			case <-c.ctx.Done():
			case <-time.After(pause/2 + rand.N(pause/2+1)):
			}
			pause = min(pause*2, 2*time.Second)
			continue
		}
		if said != "" {
			c.o.Log.Info("RabbitMQ is there", "connection", c.o.Name)
			said = ""
		}
		pause = 50 * time.Millisecond
		c.set(l)
		select {
		case <-l.gone:
			c.set(nil)
			if c.ctx.Err() == nil {
				c.mu.Lock()
				said = c.lastErr.Error()
				c.mu.Unlock()
				c.o.Log.Warn("the connection to RabbitMQ is lost, coming back", "connection", c.o.Name, "reason", said)
			}
			select { // not all clients of a restarted server in the same instant
			case <-c.ctx.Done():
			case <-time.After(rand.N(50 * time.Millisecond)):
			}
		case <-c.ctx.Done():
			c.set(nil)
			l.close()
		}
	}
}

// acquire waits for a link.
func (c *Conn) acquire(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, changed := c.link, c.changed
		c.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// Ready is nil when the connection stands and takes messages; ErrBlocked under an alarm; else why it is away.
func (c *Conn) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.link == nil:
		return fmt.Errorf("%w: %w", ErrAway, c.lastErr)
	case c.link.blocked.Load():
		return ErrBlocked
	}
	return nil
}

// Connects counts the connections made so far.
func (c *Conn) Connects() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials
}

// QueueState is what a passive look at a queue shows.
type QueueState struct {
	Ready     int // messages that no consumer holds
	Consumers int
}

// Depth gives how many messages are ready in a queue (those with consumers are not counted). It needs a connection.
func (c *Conn) Depth(ctx context.Context, queue string) (int, error) {
	s, err := c.Inspect(ctx, queue)
	return s.Ready, err
}

// ErrNoQueue says that there is no queue of that name.
var ErrNoQueue = errors.New("there is no such queue")

// Inspect looks at a queue. It needs a connection.
func (c *Conn) Inspect(ctx context.Context, queue string) (QueueState, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	l, err := c.acquire(ctx)
	if err != nil {
		return QueueState{}, fmt.Errorf("look at %s: %w", queue, err)
	}
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.kill()
		}
	})
	defer stop()
	ch, err := l.amqp.Channel()
	if err != nil {
		return QueueState{}, fmt.Errorf("look at %s: %w", queue, err)
	}
	defer ch.Close()
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	var ae *amqp.Error
	if errors.As(err, &ae) && ae.Code == amqp.NotFound {
		return QueueState{}, fmt.Errorf("%w: %s", ErrNoQueue, queue)
	}
	if err != nil {
		return QueueState{}, fmt.Errorf("look at %s: %w", queue, err)
	}
	return QueueState{Ready: q.Messages, Consumers: q.Consumers}, nil
}

// Close ends the connection, in less than two seconds whatever the server does.
func (c *Conn) Close() error {
	c.cancel()
	<-c.done
	return nil
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Delivery is a message in our hands, on the channel that it came on.
type Delivery struct {
	Body        []byte
	Redelivered bool
	Key         string
	MessageID   string
	At          time.Time // when it was first published, to the second
	Type        string
	Headers     amqp.Table
	Epoch       uint64 // of the consumer's channel; raised whenever the channel is lost

	c   *Consumer
	ch  Channel
	tag uint64
}

// Ack acknowledges the message. false: its channel is gone, the broker delivers it again.
func (d *Delivery) Ack() bool { return d.ack(false, 1) }

// AckMultiple acknowledges this message and all before it on its channel, n in all.
func (d *Delivery) AckMultiple(n int) bool { return d.ack(true, n) }

func (d *Delivery) ack(multiple bool, n int) bool {
	if d.Stale() {
		return false
	}
	if err := d.ch.Ack(d.tag, multiple); err != nil {
		return false
	}
	d.c.unacked.Add(-int64(n))
	return true
}

// Stale tells whether the channel of the delivery is gone.
func (d *Delivery) Stale() bool { return d.c.epoch.Load() != d.Epoch }

// ConsumeOptions of a consumer.
type ConsumeOptions struct {
	Queue    string
	Prefetch int // 1…65535
	// Bindings makes the queue an exclusive one of this process, declared at each connect and bound with these keys: what was sent while
	// it was away is lost.
	Bindings []string
}

// Consumer consumes a queue, and comes back by itself on a new channel when its channel is lost.
type Consumer struct {
	conn     *Conn
	o        ConsumeOptions
	prefetch atomic.Int64
	out      chan Delivery
	lost     chan uint64
	epoch    atomic.Uint64
	unacked  atomic.Int64
	ready    atomic.Bool
	retune   chan struct{} // a token when the prefetch has changed

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	ended  sync.Once // out is closed

	mu    sync.Mutex
	ch    Channel
	quiet bool // no more deliveries are wanted
	begun int  // consumers so far
}

// next names the consumer that is about to begin on the channel. A name is used once: a quorum queue that meets a cancelled consumer's name again delivers what
// that one still holds once more.
func (k *Consumer) next() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun++
	return k.name()
}

// name of the present consumer. Called with the lock held.
func (k *Consumer) name() string { return "c" + strconv.Itoa(k.begun) }

// withdraw ends the present consumer of the channel, not the channel.
func (k *Consumer) withdraw(ch Channel) error {
	k.mu.Lock()
	name := k.name()
	k.mu.Unlock()
	return ch.Cancel(name, false)
}

// Consume begins to consume, as soon as the connection is there. Several consumers may share a connection that nobody publishes on.
func (c *Conn) Consume(o ConsumeOptions) *Consumer {
	ctx, cancel := context.WithCancel(c.ctx)
	k := &Consumer{conn: c, o: o, out: make(chan Delivery, max(o.Prefetch, 1)), lost: make(chan uint64, 1), retune: make(chan struct{}, 1), ctx: ctx, cancel: cancel, done: make(chan struct{})}
	k.prefetch.Store(int64(max(o.Prefetch, 1)))
	k.epoch.Store(1)
	go k.run()
	return k
}

// Deliveries is where messages come, buffered as deep as the prefetch: amqp091's own channel is not, so that "nothing there" would be said
// with dozens waiting. It is closed by Stop, and after Quiesce as soon as all that was delivered has come.
func (k *Consumer) Deliveries() <-chan Delivery { return k.out }

// Lost gives the epoch that has ended whenever a channel is lost; what is still held of it will be delivered again. Only the newest is kept.
func (k *Consumer) Lost() <-chan uint64 { return k.lost }

// Ready tells whether the consumer is registered at the server.
func (k *Consumer) Ready() bool { return k.ready.Load() }

// Unacked is how many deliveries of the present channel are not acknowledged.
func (k *Consumer) Unacked() int { return int(k.unacked.Load()) }

// Retune sets another prefetch. It takes effect for new consumers only, so the queue is consumed again, on the same channel: what is in hand stays in hand.
func (k *Consumer) Retune(prefetch int) {
	if k.prefetch.Swap(int64(max(prefetch, 1))) != int64(max(prefetch, 1)) {
		select {
		case k.retune <- struct{}{}:
		default:
		}
	}
}

// again consumes once more on the channel of a consumer that was cancelled; nil when no more deliveries are wanted.
func (k *Consumer) again(ch Channel) (<-chan amqp.Delivery, error) {
	if k.silent() {
		k.end()
		return nil, nil
	}
	if err := ch.Qos(int(k.prefetch.Load()), 0, false); err != nil {
		return nil, err
	}
	in, err := ch.Consume(k.o.Queue, k.next(), false, len(k.o.Bindings) > 0, false, false, nil)
	if err == nil && k.silent() { // Quiesce may have cancelled the one before
		go k.withdraw(ch)
	}
	return in, err
}

// Reset closes the channel and comes back: everything that is not acknowledged is delivered again, in order.
func (k *Consumer) Reset() {
	k.mu.Lock()
	ch := k.ch
	k.mu.Unlock()
	if ch != nil {
		ch.Close()
	}
}

// Quiesce ends the deliveries and keeps the channel, so that what is in hand can still be acknowledged. What has been delivered comes, then
// Deliveries is closed. Without a channel there is nothing in hand, and the consumer ends.
func (k *Consumer) Quiesce(ctx context.Context) error {
	k.mu.Lock()
	ch := k.ch
	k.quiet = true
	k.mu.Unlock()
	if ch == nil {
		k.cancel()
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- k.withdraw(ch) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("broker: the server did not end the consumer of %s: %w", k.o.Queue, ctx.Err())
	}
}

// Stop ends the consumer by closing its channel: a single active consumer that only cancels over a batch lets the next one in before it.
func (k *Consumer) Stop(ctx context.Context) error {
	k.cancel()
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		return errors.New("broker: the consumer of " + k.o.Queue + " did not stop in time")
	}
}

func (k *Consumer) run() {
	defer close(k.done)
	defer k.end()
	for pause := 20 * time.Millisecond; k.ctx.Err() == nil && !k.silent(); {
		l, err := k.conn.acquire(k.ctx)
		if err != nil {
			return
		}
		begun := time.Now()
		if err := k.serve(l); err != nil {
			k.conn.o.Log.Warn("consumer lost its channel", "queue", k.o.Queue, "reason", err.Error())
		}
		if time.Since(begun) > 5*time.Second {
			pause = 20 * time.Millisecond
		}
		select {
		case <-k.ctx.Done():
		case <-time.After(pause):
			pause = min(pause*2, 2*time.Second)
		}
	}
}

// end closes Deliveries; whoever sends on it has ended.
func (k *Consumer) end() { k.ended.Do(func() { close(k.out) }) }

// silent tells whether no more deliveries are wanted: once the channel that could still acknowledge is lost there is nothing left to do.
func (k *Consumer) silent() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.quiet
}

func (k *Consumer) open(l *link) (Channel, <-chan amqp.Delivery, error) {
	ch, err := l.amqp.Channel()
	if err != nil {
		return nil, nil, err
	}
	if len(k.o.Bindings) > 0 {
		if _, err := ch.QueueDeclare(k.o.Queue, false, true, true, false, nil); err != nil {
			return ch, nil, err
		}
		for _, key := range k.o.Bindings {
			if err := ch.QueueBind(k.o.Queue, key, k.conn.o.Exchange, false, nil); err != nil {
				return ch, nil, err
			}
		}
	}
	if err := ch.Qos(int(k.prefetch.Load()), 0, false); err != nil {
		return ch, nil, err
	}
	in, err := ch.Consume(k.o.Queue, k.next(), false, len(k.o.Bindings) > 0, false, false, nil)
	return ch, in, err
}

// serve is the consumer on one channel.
func (k *Consumer) serve(l *link) error {
	ch, in, err := k.open(l)
	if ch != nil {
		defer ch.Close()
	}
	if err != nil {
		return err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	cancelled := ch.NotifyCancel(make(chan string, 1))
	k.unacked.Store(0)
	k.mu.Lock()
	k.ch = ch
	quiet := k.quiet
	k.mu.Unlock()
	if quiet { // asked before there was a channel
		return nil
	}
	k.ready.Store(true)
	epoch := k.epoch.Load()
	retuning := false
	defer func() {
		k.ready.Store(false)
		k.mu.Lock()
		k.ch = nil
		k.mu.Unlock()
		k.epoch.Add(1)
		select {
		case <-k.lost:
		default:
		}
		k.lost <- epoch
	}()
	for {
		select {
		case d, ok := <-in:
			if !ok {
				in = nil
				switch {
				case k.silent():
					k.end()
				case retuning:
					retuning = false
					if in, err = k.again(ch); err != nil {
						return err
					}
				}
				continue
			}
			k.unacked.Add(1)
			select {
			case k.out <- Delivery{Body: d.Body, Redelivered: d.Redelivered, Key: d.RoutingKey, MessageID: d.MessageId, At: d.Timestamp, Type: d.Type, Headers: d.Headers, Epoch: epoch, c: k, ch: ch, tag: d.DeliveryTag}:
			case <-closed:
				return errors.New("the channel was closed")
			case <-k.ctx.Done():
				return nil
			}
		case <-k.retune:
			if in != nil && !retuning {
				retuning = true
				go k.withdraw(ch) // what was delivered comes, then in is closed
			}
		case err, ok := <-closed:
			if ok && err != nil {
				return err
			}
			return nil
		case <-cancelled: // the queue was deleted or moved; from 4.3 on also a consumer that took too long
			return errors.New("the server cancelled the consumer")
		case <-k.ctx.Done():
			return nil // the channel is closed: what is unacknowledged is returned at once, nothing is active over it
		}
	}
}

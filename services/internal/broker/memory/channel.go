package memory

import (
	"bytes"
	"fmt"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"
)

// channel is one of a connection's. The server's lock guards all of it.
type channel struct {
	s     *Server
	c     *connection
	ended bool

	closers  []chan *amqp.Error
	confirms []chan amqp.Confirmation
	returns  []chan amqp.Return
	cancels  []chan string

	confirming bool
	published  uint64
	prefetch   int
	consumers  map[string]*consumer
	delivered  uint64
	unacked    map[uint64]*held
	order      []uint64 // tags of unacked, rising; settled ones are skipped
}

// held is a delivery that is not acknowledged.
type held struct {
	m *message
	q *queue
	k *consumer
}

// consumer of a queue on a channel.
type consumer struct {
	name     string
	ch       *channel
	q        *queue
	prefetch int
	out      chan amqp.Delivery // as deep as the prefetch, so that delivering never waits
	holds    int
}

func (k *consumer) room() bool { return k.holds < k.prefetch && len(k.out) < cap(k.out) }

func (k *consumer) deliver(m *message) {
	ch := k.ch
	ch.delivered++
	k.holds++
	ch.unacked[ch.delivered] = &held{m, k.q, k}
	ch.order = append(ch.order, ch.delivered)
	k.out <- amqp.Delivery{
		Headers: m.Headers, ContentType: m.ContentType, DeliveryMode: m.DeliveryMode, CorrelationId: m.CorrelationId, MessageId: m.MessageId, Type: m.Type,
		ConsumerTag: k.name, DeliveryTag: ch.delivered, Redelivered: m.redelivered, Exchange: m.exchange, RoutingKey: m.key, Body: m.Body,
	}
}

// fail ends the channel, as a server does when it is asked for what can't be, and gives the reason.
func (ch *channel) fail(code int, format string, args ...any) error {
	err := &amqp.Error{Code: code, Reason: fmt.Sprintf(format, args...), Server: true}
	ch.end(err)
	return err
}

// enter locks the server; false: the channel is closed.
func (ch *channel) enter() bool {
	ch.s.mu.Lock()
	if ch.ended {
		ch.s.mu.Unlock()
		return false
	}
	return true
}

func (ch *channel) leave() { ch.s.mu.Unlock() }

func (ch *channel) Close() error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	ch.end(nil)
	return nil
}

// end closes the channel: its consumers leave first, then what it held goes back, in order.
func (ch *channel) end(why *amqp.Error) {
	if ch.ended {
		return
	}
	ch.ended = true
	delete(ch.c.channels, ch)
	for _, k := range ch.consumers {
		k.q.leave(k)
		close(k.out)
	}
	back := map[*queue]bool{}
	for _, tag := range ch.order {
		if h := ch.unacked[tag]; h != nil {
			h.q.restore(h.m)
			back[h.q] = true
		}
	}
	for q := range back {
		q.serve()
	}
	for _, k := range ch.consumers {
		k.q.serve() // of a single active consumer the next has its turn
	}
	ch.unacked, ch.order, ch.consumers = nil, nil, nil
	tell(ch.closers, why)
	for _, to := range ch.confirms {
		close(to)
	}
	for _, to := range ch.returns {
		close(to)
	}
	for _, to := range ch.cancels {
		close(to)
	}
}

func notify[T any](ch *channel, to chan T, list *[]chan T) chan T {
	if !ch.enter() {
		close(to)
		return to
	}
	defer ch.leave()
	*list = append(*list, to)
	return to
}

func (ch *channel) NotifyClose(to chan *amqp.Error) chan *amqp.Error {
	return notify(ch, to, &ch.closers)
}
func (ch *channel) NotifyReturn(to chan amqp.Return) chan amqp.Return {
	return notify(ch, to, &ch.returns)
}
func (ch *channel) NotifyPublish(to chan amqp.Confirmation) chan amqp.Confirmation {
	return notify(ch, to, &ch.confirms)
}
func (ch *channel) NotifyCancel(to chan string) chan string { return notify(ch, to, &ch.cancels) }

func (ch *channel) Confirm(bool) error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	ch.confirming = true
	return nil
}

func (ch *channel) ExchangeDeclare(name, kind string, _, _, _, _ bool, _ amqp.Table) error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	if kind != amqp.ExchangeTopic {
		return ch.fail(amqp.CommandInvalid, "COMMAND_INVALID - exchanges are of the kind topic here, not '%s'", kind)
	}
	if ch.s.exchanges[name] == nil {
		ch.s.exchanges[name] = &exchange{}
	}
	return nil
}

// visible finds a queue that this connection may see.
func (ch *channel) visible(name string) (*queue, error) {
	q := ch.s.queues[name]
	if q == nil {
		return nil, ch.fail(amqp.NotFound, "NOT_FOUND - no queue '%s'", name)
	}
	if q.owner != nil && q.owner != ch.c {
		return nil, ch.fail(amqp.ResourceLocked, "RESOURCE_LOCKED - '%s' is another connection's", name)
	}
	return q, nil
}

func (ch *channel) QueueDeclare(name string, _, autoDelete, exclusive, _ bool, args amqp.Table) (amqp.Queue, error) {
	if !ch.enter() {
		return amqp.Queue{}, amqp.ErrClosed
	}
	defer ch.leave()
	if ch.s.queues[name] == nil {
		q := newQueue(ch.s, name, args)
		q.auto = autoDelete
		if exclusive {
			q.owner = ch.c
		}
		ch.s.queues[name] = q
	}
	return ch.look(name)
}

func (ch *channel) QueueDeclarePassive(name string, _, _, _, _ bool, _ amqp.Table) (amqp.Queue, error) {
	if !ch.enter() {
		return amqp.Queue{}, amqp.ErrClosed
	}
	defer ch.leave()
	return ch.look(name)
}

func (ch *channel) look(name string) (amqp.Queue, error) {
	q, err := ch.visible(name)
	if err != nil {
		return amqp.Queue{}, err
	}
	return amqp.Queue{Name: name, Messages: q.len(), Consumers: len(q.consumers)}, nil
}

func (ch *channel) QueueBind(name, key, exchange string, _ bool, _ amqp.Table) error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	q, err := ch.visible(name)
	if err != nil {
		return err
	}
	if err := ch.s.bind(exchange, key, q); err != nil {
		return ch.fail(amqp.NotFound, "NOT_FOUND - no exchange '%s'", exchange)
	}
	return nil
}

// Publish routes a message, and tells what became of it: what came back is told before the confirm.
func (ch *channel) Publish(exchange, key string, mandatory, _ bool, m amqp.Publishing) error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	m.Body = bytes.Clone(m.Body) // the sender may use it again
	ch.published++
	tag := ch.published
	routed, refused, waits, err := ch.s.accept(exchange, key, m, &lateConfirm{ch: ch, tag: tag})
	if err != nil {
		ch.fail(amqp.NotFound, "NOT_FOUND - no exchange '%s'", exchange)
		return nil // a server says so later: the channel is closed, the outcome unknown
	}
	if !routed && mandatory {
		for _, to := range ch.returns {
			to <- amqp.Return{ReplyCode: amqp.NoRoute, ReplyText: "NO_ROUTE", Exchange: exchange, RoutingKey: key, CorrelationId: m.CorrelationId, MessageId: m.MessageId}
		}
	}
	if !waits {
		ch.confirm(tag, !refused)
	}
	return nil
}

// confirm tells the publisher what became of a message, unless it has left. Its channel is as deep as what it has in flight.
func (ch *channel) confirm(tag uint64, ok bool) {
	if ch.ended || !ch.confirming {
		return
	}
	for _, to := range ch.confirms {
		to <- amqp.Confirmation{DeliveryTag: tag, Ack: ok}
	}
}

// Qos sets the prefetch of consumers to come.
func (ch *channel) Qos(prefetch, _ int, _ bool) error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	ch.prefetch = prefetch
	return nil
}

// unlimited is the prefetch of a channel that was given none.
const unlimited = 65535

func (ch *channel) Consume(name, tag string, _, _, _, _ bool, _ amqp.Table) (<-chan amqp.Delivery, error) {
	if !ch.enter() {
		return nil, amqp.ErrClosed
	}
	defer ch.leave()
	q, err := ch.visible(name)
	if err != nil {
		return nil, err
	}
	if ch.consumers[tag] != nil {
		return nil, ch.fail(amqp.NotAllowed, "NOT_ALLOWED - attempt to reuse consumer tag '%s'", tag)
	}
	prefetch := ch.prefetch
	if prefetch <= 0 {
		prefetch = unlimited
	}
	k := &consumer{name: tag, ch: ch, q: q, prefetch: prefetch, out: make(chan amqp.Delivery, prefetch)}
	ch.consumers[tag] = k
	q.consumers = append(q.consumers, k)
	q.serve()
	return k.out, nil
}

// Cancel ends a consumer. What it was given stays the channel's, and can be acknowledged.
func (ch *channel) Cancel(tag string, _ bool) error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	k := ch.consumers[tag]
	if k == nil {
		return nil
	}
	delete(ch.consumers, tag)
	k.q.leave(k)
	close(k.out)
	k.q.serve()
	return nil
}

// Ack acknowledges a delivery, or all up to it.
func (ch *channel) Ack(tag uint64, multiple bool) error {
	if !ch.enter() {
		return amqp.ErrClosed
	}
	defer ch.leave()
	if !multiple {
		if ch.unacked[tag] == nil {
			return ch.fail(amqp.PreconditionFailed, "PRECONDITION_FAILED - unknown delivery tag %d", tag)
		}
		ch.settle(tag)
		ch.trim()
		return nil
	}
	end, _ := slices.BinarySearch(ch.order, tag+1)
	if end == 0 {
		return ch.fail(amqp.PreconditionFailed, "PRECONDITION_FAILED - unknown delivery tag %d", tag)
	}
	for _, t := range ch.order[:end] {
		ch.settle(t)
	}
	ch.order = append(ch.order[:0], ch.order[end:]...)
	return nil
}

// settle takes one delivery out, and gives its consumer the next.
func (ch *channel) settle(tag uint64) {
	h := ch.unacked[tag]
	if h == nil {
		return
	}
	delete(ch.unacked, tag)
	h.k.holds--
	h.q.settle(h.m)
	h.q.serve()
}

// trim shortens the order when most of it is settled.
func (ch *channel) trim() {
	if len(ch.order) > 64 && len(ch.order) > 2*len(ch.unacked) {
		ch.order = slices.DeleteFunc(ch.order, func(t uint64) bool { return ch.unacked[t] == nil })
	}
}

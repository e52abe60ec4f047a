package broker

import (
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Server is where connections come from: RabbitMQ at Options.URL, unless Options.Server is another. The seam is here, below Conn, Publisher and Consumer, so
// that what the services run on without RabbitMQ (package memory) is under the very code that runs on it: confirms, epochs, retuning and quiescing exist once. What
// an implementation must do is package brokertest's suite; RabbitMQ itself passes it too.
type Server interface {
	// Connect makes a connection, or says why there is none now.
	Connect(name string) (Connection, error)
}

// Connection is what a Conn needs of a connection. The notifications are amqp091's: the channel is closed when the connection is.
type Connection interface {
	Channel() (Channel, error)
	Version() string
	NotifyClose(chan *amqp.Error) chan *amqp.Error
	NotifyBlocked(chan amqp.Blocking) chan amqp.Blocking
	// CloseDeadline says farewell, and returns when the server has answered, or at that time.
	CloseDeadline(time.Time) error
	// Kill ends the connection without a word. It may be called at any time, more than once.
	Kill()
}

// Channel is what this package needs of *amqp.Channel, which is one.
type Channel interface {
	Close() error
	NotifyClose(chan *amqp.Error) chan *amqp.Error

	ExchangeDeclare(name, kind string, durable, autoDelete, internal, noWait bool, args amqp.Table) error
	QueueDeclare(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
	// QueueDeclarePassive looks at a queue. One that isn't there is an *amqp.Error NotFound, and closes the channel.
	QueueDeclarePassive(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
	QueueBind(name, key, exchange string, noWait bool, args amqp.Table) error

	Confirm(noWait bool) error
	NotifyPublish(chan amqp.Confirmation) chan amqp.Confirmation
	NotifyReturn(chan amqp.Return) chan amqp.Return
	Publish(exchange, key string, mandatory, immediate bool, m amqp.Publishing) error

	Qos(prefetchCount, prefetchSize int, global bool) error
	Consume(queue, consumer string, autoAck, exclusive, noLocal, noWait bool, args amqp.Table) (<-chan amqp.Delivery, error)
	NotifyCancel(chan string) chan string
	// Cancel ends a consumer: what was delivered comes, then its deliveries are closed.
	Cancel(consumer string, noWait bool) error
	Ack(tag uint64, multiple bool) error
}

// rabbit is RabbitMQ at an address.
type rabbit struct{ c *Conn }

// rabbitConnection is one connection to it. amqp091's own Close waits for an answer, so the wire below is at hand.
type rabbitConnection struct {
	*amqp.Connection
	wire net.Conn
}

func (r rabbit) Connect(name string) (Connection, error) {
	var l rabbitConnection
	props := amqp.NewConnectionProperties()
	props.SetClientConnectionName(name)
	var err error
	l.Connection, err = amqp.DialConfig(r.c.o.URL, amqp.Config{
		Heartbeat:  heartbeat,
		Properties: props,
		Dial: func(network, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: dialTimeout}
			nc, err := d.DialContext(r.c.ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if err := nc.SetDeadline(time.Now().Add(dialTimeout)); err != nil { // of the handshake; amqp091 clears it
				nc.Close()
				return nil, err
			}
			l.wire = newWire(nc)
			return l.wire, nil
		},
	})
	if err != nil {
		return nil, err
	}
	return &l, nil
}

func (l *rabbitConnection) Channel() (Channel, error) {
	ch, err := l.Connection.Channel()
	if err != nil {
		return nil, err
	}
	return ch, nil
}

func (l *rabbitConnection) Version() string {
	version, _ := l.Properties["version"].(string)
	return version
}

func (l *rabbitConnection) Kill() { l.wire.Close() }

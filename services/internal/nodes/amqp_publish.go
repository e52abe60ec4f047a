package nodes

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

const (
	maxHeaders  = 100
	amqpChannel = 16 // channels kept for one server and user; more are opened and closed again
)

func amqpPublish(o HTTPOptions, own string) node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "amqp.publish", Version: 1, Kind: flow.KindEffect, Category: "integration", Timeout: 15 * time.Second, Credentials: []string{credential.AMQP},
			Title:       "Publish to RabbitMQ",
			Description: "Publishes a persistent message and waits until the broker confirms it. Without a credential it goes to the platform's own broker, virtual host flows. The message id is the step's idempotency key, so that a consumer can tell a repetition.",
			Config: `{"type": "object", "required": ["exchange"], "additionalProperties": false,
				"properties": {
					"exchange": {"type": "string", "maxLength": 255, "title": "Exchange", "description": "declared as a durable topic exchange if it is missing; an empty text is the default exchange, whose routing keys are names of queues"},
					"routingKey": {"type": "string", "maxLength": 255, "default": "", "title": "Routing key"},
					"headers": {"type": "object", "maxProperties": 100, "title": "Headers", "description": "texts, numbers, true and false"},
					"body": {"title": "Body", "description": "a text is sent as it is (text/plain), anything else as JSON (application/json)"},
					"credential": {"type": "string", "minLength": 1, "maxLength": 100, "title": "Credential", "description": "name or id of a credential of type amqp; without it, the platform's own broker"},
					"mandatory": {"type": "boolean", "default": false, "title": "Mandatory", "description": "fail if no queue takes the message; otherwise it is dropped silently then"}}}`,
			Output: `{"type": "object", "required": ["confirmed", "messageId"], "properties": {"confirmed": {"const": true}, "messageId": {"type": "string"}}}`,
			Examples: []node.Example{
				{Title: "An event", Config: map[string]any{"exchange": "orders", "routingKey": "order.large", "body": map[string]any{"id": "{{ input.id }}"}}, Input: map[string]any{"id": 7}},
				{Title: "To a queue that must be there", Config: map[string]any{"exchange": "", "routingKey": "invoices", "body": "{{ input.text }}", "mandatory": true, "credential": "erp"}, Input: map[string]any{"text": "hello"}},
			},
		},
		Executor: &amqpExecutor{options: o, own: own, pools: newPools((*amqpServer).close)},
	}
}

type amqpExecutor struct {
	options HTTPOptions
	own     string // URL of the platform's own broker for flows
	pools   *pools[*amqpServer]
}

func (x *amqpExecutor) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	exchange, problem := text(c.Config, "exchange")
	if problem != nil {
		return node.Result{}, problem
	}
	key, problem := text(c.Config, "routingKey")
	if problem != nil {
		return node.Result{}, problem
	}
	mandatory, ok := c.Config["mandatory"].(bool)
	if !ok && c.Config["mandatory"] != nil {
		return node.Result{}, wrong("mandatory", c.Config["mandatory"], "true or false")
	}
	if len(exchange) > 255 || len(key) > 255 {
		return node.Result{}, &node.Error{Code: "config", Message: "exchange and routingKey have at most 255 bytes"}
	}
	message, problem := amqpMessage(c)
	if problem != nil {
		return node.Result{}, problem
	}
	address, dial, err := x.address(ctx, c)
	if err != nil {
		return node.Result{}, err
	}
	server, release, ok, err := x.pools.take(address, func() (*amqpServer, error) { return &amqpServer{address: address, dial: dial}, nil })
	if err != nil || !ok {
		return node.Result{}, tooManyServers
	}
	// The library's calls don't end with a context: the work goes on beside us, bounded by the connection's heartbeat, and whoever waits is let go in time.
	done := make(chan error, 1)
	go func() {
		defer release()
		done <- server.publish(ctx, exchange, key, mandatory, message)
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return node.Result{}, ctx.Err()
	}
	if err != nil {
		return node.Result{}, amqpFailed(ctx, err, exchange, key)
	}
	return node.Result{Output: map[string]any{"confirmed": true, "messageId": message.MessageId}}, nil
}

// address gives the URL of the broker, and how to reach it. The platform's own is reached whatever flows may call.
func (x *amqpExecutor) address(ctx context.Context, c node.Call) (string, dialFunc, error) {
	if c.Config[node.CredentialSetting] == nil {
		if x.own == "" {
			return "", nil, &node.Error{Code: "config", Message: "this worker has no broker of its own for flows (FLOW_NODES_RABBITMQ_URL): name a credential"}
		}
		return x.own, (&net.Dialer{Timeout: 10 * time.Second}).DialContext, nil
	}
	opened, err := open(ctx, c, credential.AMQP)
	if err != nil {
		return "", nil, err
	}
	return credential.AMQPURL(opened.Fields), x.options.DialContext, nil
}

func amqpMessage(c node.Call) (amqp.Publishing, *node.Error) {
	m := amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: c.IdempotencyKey, Timestamp: c.Now, AppId: "flow-platform", Headers: amqp.Table{"X-Flow-Attempt": int64(c.Attempt)}}
	switch b := c.Config["body"].(type) {
	case string:
		m.Body, m.ContentType = []byte(b), "text/plain; charset=utf-8"
	default:
		body, err := flow.EncodeValue(b)
		if err != nil {
			return m, &node.Error{Code: "config", Message: "body can't be written as JSON: " + err.Error()}
		}
		m.Body, m.ContentType = body, "application/json"
	}
	headers, ok := c.Config["headers"].(map[string]any)
	if !ok && c.Config["headers"] != nil || len(headers) > maxHeaders {
		return m, wrong("headers", c.Config["headers"], fmt.Sprintf("an object with at most %d fields", maxHeaders))
	}
	for name, v := range headers {
		switch h := v.(type) {
		case int:
			m.Headers[name] = int64(h)
		case string, bool, float64, nil:
			m.Headers[name] = h
		case json.Number:
			m.Headers[name] = h.String()
		default:
			return m, wrong("headers."+name, v, "a text, a number, true or false")
		}
		if len(name) > 128 {
			return m, &node.Error{Code: "config", Message: "a header's name has at most 128 bytes"}
		}
	}
	return m, nil
}

// errUnroutable says that no queue took a message.
var errUnroutable = errors.New("no queue took the message")

// errRefused says that the broker did not confirm a message.
var errRefused = errors.New("the broker refused the message")

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// amqpServer is a connection to one broker as one user, made when it is needed, with channels that carry one message at a time.
type amqpServer struct {
	address string
	dial    dialFunc

	mu       sync.Mutex
	conn     *amqp.Connection
	channels []*amqpLine
	declared map[string]bool
}

// amqpLine is a channel in confirm mode.
type amqpLine struct {
	ch       *amqp.Channel
	conn     *amqp.Connection
	returned chan amqp.Return
}

func (s *amqpServer) publish(ctx context.Context, exchange, key string, mandatory bool, m amqp.Publishing) error {
	line, err := s.line(ctx)
	if err != nil {
		return err
	}
	if err := s.declare(line, exchange); err != nil {
		_ = line.ch.Close() // the broker closed it
		return err
	}
	confirmed, err := line.ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, mandatory, false, m)
	if err != nil {
		_ = line.ch.Close()
		return err
	}
	acked, err := confirmed.WaitContext(ctx)
	if err != nil {
		_ = line.ch.Close()
		return err
	}
	var unroutable bool
	select { // a return comes before its confirm
	case <-line.returned:
		unroutable = true
	default:
	}
	if line.ch.IsClosed() && !acked {
		return amqp.ErrClosed
	}
	s.give(line)
	switch {
	case !acked:
		return errRefused
	case unroutable && mandatory:
		return errUnroutable
	}
	return nil
}

// line gives a channel that nobody uses.
func (s *amqpServer) line(ctx context.Context) (*amqpLine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.channels) > 0 {
		l := s.channels[len(s.channels)-1]
		s.channels = s.channels[:len(s.channels)-1]
		if !l.ch.IsClosed() && l.conn == s.conn {
			return l, nil
		}
	}
	if s.conn == nil || s.conn.IsClosed() {
		conn, err := s.connect(ctx)
		if err != nil {
			return nil, err
		}
		s.conn, s.declared = conn, map[string]bool{}
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		return nil, err
	}
	return &amqpLine{ch: ch, conn: s.conn, returned: ch.NotifyReturn(make(chan amqp.Return, 1))}, nil
}

func (s *amqpServer) connect(ctx context.Context) (*amqp.Connection, error) {
	config := amqp.Config{Heartbeat: 10 * time.Second, Locale: "en_US", Properties: amqp.Table{"connection_name": "flow-platform: amqp.publish"}}
	u, err := url.Parse(s.address)
	if err != nil {
		return nil, errors.New("its address can't be read")
	}
	if u.Scheme == "amqps" {
		config.TLSClientConfig = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	config.Dial = func(network, address string) (net.Conn, error) {
		c, err := s.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return c, c.SetDeadline(time.Now().Add(10 * time.Second)) // of the greeting; the library clears it
	}
	return amqp.DialConfig(s.address, config)
}

// declare makes the exchange if it is missing. It asks once for each connection.
func (s *amqpServer) declare(l *amqpLine, exchange string) error {
	s.mu.Lock()
	known := exchange == "" || l.conn == s.conn && s.declared[exchange]
	s.mu.Unlock()
	if known {
		return nil
	}
	probe, err := l.conn.Channel() // a refusal closes the channel
	if err != nil {
		return err
	}
	err = probe.ExchangeDeclarePassive(exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	var ae *amqp.Error
	if errors.As(err, &ae) && ae.Code == amqp.NotFound {
		err = l.ch.ExchangeDeclare(exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	} else {
		_ = probe.Close()
	}
	if errors.As(err, &ae) && ae.Code == amqp.AccessRefused {
		err = nil // publishing may be allowed where declaring is not: the publish will tell
	}
	if err == nil {
		s.mu.Lock()
		if l.conn == s.conn && len(s.declared) < 10_000 {
			s.declared[exchange] = true
		}
		s.mu.Unlock()
	}
	return err
}

func (s *amqpServer) give(l *amqpLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.ch.IsClosed() || l.conn != s.conn || len(s.channels) >= amqpChannel {
		go l.ch.Close()
		return
	}
	s.channels = append(s.channels, l)
}

func (s *amqpServer) close() {
	s.mu.Lock()
	conn := s.conn
	s.conn, s.channels = nil, nil
	s.mu.Unlock()
	if conn != nil {
		_ = conn.CloseDeadline(time.Now().Add(time.Second))
	}
}

func amqpFailed(ctx context.Context, err error, exchange, key string) error {
	var ae *amqp.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errUnroutable):
		return &node.Error{Code: "amqp-unroutable", Message: fmt.Sprintf("no queue takes messages of exchange %q with routing key %q: bind one, or set mandatory to false", exchange, key)}
	case errors.Is(err, errRefused):
		return &node.Error{Code: "amqp-refused", Retryable: true, Message: "the broker did not take the message: a queue may be full, or the broker short of memory or disk"}
	case errors.As(err, &ae) && ae.Code != amqp.ChannelError && ae.Code != amqp.FrameError && !errors.Is(err, amqp.ErrClosed):
		return &node.Error{Code: "amqp", Retryable: ae.Code == amqp.ConnectionForced || ae.Code == amqp.ResourceError || ae.Code == amqp.InternalError, Message: fmt.Sprintf("RabbitMQ: %s (%d)", ae.Reason, ae.Code), Data: map[string]any{"code": ae.Code}}
	}
	return connectFailed("amqp-connect", "RabbitMQ", err)
}

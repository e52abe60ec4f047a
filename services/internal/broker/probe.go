package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Probe connects once to a server, opens a channel, and leaves. It connects with dial only. Its errors are for users and don't show the URL.
func Probe(ctx context.Context, url string, dial func(ctx context.Context, network, address string) (net.Conn, error)) error {
	if _, err := amqp.ParseURI(url); err != nil {
		return errors.New("this is not an AMQP URL that can be used") // the library's text may show it
	}
	var raw net.Conn
	var dialErr error
	c, err := amqp.DialConfig(url, amqp.Config{Heartbeat: 10 * time.Second, Locale: "en_US", Dial: func(network, address string) (net.Conn, error) {
		if raw, dialErr = dial(ctx, network, address); dialErr != nil {
			return nil, dialErr
		}
		if until, ok := ctx.Deadline(); ok {
			if dialErr = raw.SetDeadline(until); dialErr != nil {
				return nil, dialErr
			}
		}
		return raw, nil
	}})
	if dialErr != nil {
		return dialErr
	}
	if raw != nil {
		defer raw.Close()
	}
	if err == nil {
		defer context.AfterFunc(ctx, func() { raw.Close() })()
		_, err = c.Channel()
	}
	if err == nil {
		return nil
	}
	var refusal *amqp.Error
	if errors.As(err, &refusal) {
		return fmt.Errorf("the server refuses: %s (%d)", refusal.Reason, refusal.Code)
	}
	return err
}

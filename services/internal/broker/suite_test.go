package broker_test

import (
	"log/slog"
	"testing"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/broker/brokertest"
	"flowplatform/services/internal/testkit"
)

// TestSuite: RabbitMQ is what package memory is measured by.
func TestSuite(t *testing.T) {
	t.Parallel()
	server := testkit.RabbitMQ(t)
	brokertest.Run(t, func(t *testing.T) brokertest.Fixture {
		url, vhost := server.VHost(t)
		return brokertest.Fixture{
			Options: broker.Options{URL: url, Log: slog.New(slog.NewTextHandler(t.Output(), nil))},
			Sever:   func(t *testing.T) { server.MustCtl(t, "close_all_connections", "--vhost", vhost, "test") },
		}
	})
}

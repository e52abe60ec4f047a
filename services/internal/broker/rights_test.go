package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/testkit"
)

// What each user of configs/rabbitmq/definitions.json may do, and above all what it may not: on a real server, with the very file.
func TestRights(t *testing.T) {
	t.Parallel()
	server := testkit.NewRabbitMQ(t)
	definitions := testkit.Config(t, "rabbitmq/definitions.json", "gateway_password", "orchestrator_password", "worker_password", "flow_nodes_password")
	file := filepath.Join(os.TempDir(), fmt.Sprintf("flow-test-definitions-%d.json", os.Getpid())) // where the server's user may read it
	if err := os.WriteFile(file, []byte(definitions), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	server.MustCtl(t, "import_definitions", file)
	dial := func(user, vhost string) *amqp.Connection {
		t.Helper()
		conn, err := amqp.Dial(fmt.Sprintf("amqp://%s:secret@127.0.0.1:%d/%s", user, server.Port, vhost))
		if err != nil {
			t.Fatalf("%s at %s: %v", user, vhost, err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	users := map[string]*amqp.Connection{"g": dial("gateway", "%2F"), "o": dial("orchestrator", "%2F"), "w": dial("worker", "%2F"), "n": dial("flow_nodes", "flows")}
	if err := declare(&rabbitConnection{Connection: users["o"]}, NewTopology("flow_orchestration", []string{"default"}, 1, "3.10")); err != nil {
		t.Fatalf("the orchestrator declares the topology: %v", err)
	}
	tests := []struct {
		name    string
		allowed string // g, o, w in the platform's virtual host, n in that of flows
		do      func(*amqp.Channel) error
	}{
		{"hand a task out", "gow", publish("flow_orchestration", "tasks.default.normal")},
		{"tell of a cancel", "go", publish("flow_orchestration", "control.cancel")},
		{"report", "ow", publish("flow_orchestration", "reports.0")},
		{"report its health", "ow", publish("flow_orchestration", "heartbeat.w1")},
		{"park a dead letter", "ow", publish("flow_orchestration", "dead")},
		{"publish under another key", "o", publish("flow_orchestration", "else.where")},
		{"put a task off", "ow", publish("flow_orchestration.retry", "tasks.default.low")},
		{"put off what is no task", "o", publish("flow_orchestration.retry", "reports.0")},
		{"publish right into a queue", "n", publish("", "flow.reports.0")},
		{"publish to an exchange that the server has", "n", publish("amq.topic", "x")},
		{"take tasks", "ow", consume("flow.tasks.default.normal")},
		{"take reports", "o", consume("flow.reports.0")},
		{"take dead letters", "o", consume("flow.dead")},
		{"purge tasks", "ow", func(ch *amqp.Channel) error { _, err := ch.QueuePurge("flow.tasks.default.low", false); return err }},
		{"purge reports", "o", func(ch *amqp.Channel) error { _, err := ch.QueuePurge("flow.reports.0", false); return err }},
		{"hear control messages", "ow", own("flow.control.x", "control.#")},
		{"hear health reports", "o", own("flow.heartbeats.x", "heartbeat.#")},
		{"hear reports on a queue of its own", "o", own("flow.control.y", "reports.#")},
		{"hear everything", "o", own("flow.control.z", "#")},
		{"make a queue of the platform", "on", queue("flow.tasks.more.low")},
		{"make any queue", "n", queue("mine")},
		{"delete a queue", "on", func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete("flow.tasks.more.low", false, false, false)
			return err
		}},
		{"make an exchange", "n", func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare("news", "topic", true, false, false, false, nil)
		}},
		{"publish to an exchange of its own", "n", publish("news", "x")},
		{"delete the platform's exchange", "", func(ch *amqp.Channel) error {
			if err := ch.ExchangeDelete("flow_orchestration", true, false); err == nil || strings.Contains(err.Error(), "PRECONDITION") {
				return errors.New("not refused") // in use, so it is still there; only the orchestrator comes this far
			} else {
				return err
			}
		}},
		{"read what flows publish", "", consume("mine")},
	}
	for _, tt := range tests {
		for _, who := range []string{"g", "o", "w", "n"} {
			if tt.name == "delete the platform's exchange" && (who == "o" || who == "n") {
				continue // the orchestrator may; in the other virtual host there is none
			}
			ch, err := users[who].Channel()
			if err != nil {
				t.Fatal(err)
			}
			err = tt.do(ch)
			ch.Close()
			var ae *amqp.Error
			refused := errors.As(err, &ae) && ae.Code == amqp.AccessRefused
			missing := errors.As(err, &ae) && ae.Code == amqp.NotFound // in this user's virtual host
			if may := strings.Contains(tt.allowed, who); may == (refused || missing) {
				t.Errorf("%s: %s may: %v, want %v (%v)", tt.name, who, !refused, may, err)
			} else if may && err != nil {
				t.Errorf("%s: %s: %v", tt.name, who, err)
			}
		}
	}
	for user, vhost := range map[string]string{"gateway": "flows", "orchestrator": "flows", "worker": "flows", "flow_nodes": "%2F"} {
		if conn, err := amqp.Dial(fmt.Sprintf("amqp://%s:secret@127.0.0.1:%d/%s", user, server.Port, vhost)); err == nil {
			conn.Close()
			t.Errorf("%s may enter the virtual host %s", user, vhost)
		}
	}
}

// publish sends a message and waits until the server has taken or refused it.
func publish(exchange, key string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		closed := ch.NotifyClose(make(chan *amqp.Error, 1))
		confirmed := ch.NotifyPublish(make(chan amqp.Confirmation, 1))
		if err := ch.Publish(exchange, key, false, false, amqp.Publishing{Body: []byte("x")}); err != nil {
			return err
		}
		select {
		case err := <-closed:
			return err
		case _, open := <-confirmed:
			if !open {
				return <-closed
			}
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("neither confirmed nor refused")
		}
	}
}

func consume(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, err := ch.Consume(queue, "", false, false, false, false, nil)
		return err
	}
}

func queue(name string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, nil)
		return err
	}
}

// own makes an exclusive queue, as a process does for itself, binds it and consumes.
func own(name, key string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(name, false, true, true, false, nil); err != nil {
			return err
		}
		defer ch.QueueDelete(name, false, false, false)
		if err := ch.QueueBind(name, key, "flow_orchestration", false, nil); err != nil {
			return err
		}
		_, err := ch.Consume(name, "", false, true, false, false, nil)
		return err
	}
}

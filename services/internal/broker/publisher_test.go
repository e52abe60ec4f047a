package broker

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// amqp091 closes the channel of returns with the AMQP channel, while confirms that came before are still to be read. Reading returns until there
// are none must end all the same: it spun once, and with it a worker's publisher, for ever.
func TestConfirmsAreReadWhenTheChannelIsLost(t *testing.T) {
	t.Parallel()
	var got []Outcome
	note := func(o Outcome) { got = append(got, o) }
	s := &session{p: &Publisher{}, flight: map[uint64]inFlight{1: {done: note}, 2: {done: note}}, next: 3, oldest: 1, returned: map[string]bool{}}
	returns := make(chan amqp.Return, 1)
	returns <- amqp.Return{CorrelationId: "2"}
	close(returns)
	s.returns = returns
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.confirm(amqp.Confirmation{DeliveryTag: 1, Ack: true})
		s.confirm(amqp.Confirmation{DeliveryTag: 2, Ack: true})
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the confirms of a lost channel are never answered")
	}
	if len(got) != 2 || got[0] != Confirmed || got[1] != Unroutable {
		t.Errorf("outcomes %v, want confirmed and unroutable", got)
	}
}

package link

import "testing"

type counted struct{ acks int }

func (c *counted) Ack()       { c.acks++ }
func (c *counted) Gone() bool { return false }

func TestAMessageIsAcknowledgedWithTheLastOfItsTasks(t *testing.T) {
	t.Parallel()
	message := &counted{}
	r := share(message, 3)
	for i, want := range []int{0, 0, 1} {
		if r.Ack(); message.acks != want {
			t.Errorf("after %d of 3: acknowledged %d times, want %d", i+1, message.acks, want)
		}
	}
}

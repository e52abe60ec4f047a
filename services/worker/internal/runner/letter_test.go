package runner

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"flowplatform/services/internal/protocol"
)

// A worker that dies between parking a message and acknowledging it leaves it to the next, which parks it again: under the same id, and the report that ends its
// execution is the same. Another message of the same content is another letter.
func TestParkedAgainIsTheSameLetter(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.loadErr = ErrNoVersion
		made := time.Now().Add(-time.Minute).Truncate(time.Second)
		deliver := func(n int, message, body string) {
			b.offer(n, 1, func(_ *protocol.Task, d *Delivery) {
				d.ID, d.At, d.Returns = message, made, returnsLimit
				if body != "" {
					d.Body = []byte(body)
				}
			})
			pass(3 * time.Second)
		}
		deliver(1, "m1", "{")
		deliver(1, "m1", "{")
		deliver(2, "m2", "{")
		deliver(3, "m3", "")
		deliver(3, "m3", "")
		deliver(4, "", "{")
		synctest.Wait()
		if len(b.letters) != 6 || len(b.entries) != 2 {
			t.Fatalf("%d letters, %d entries", len(b.letters), len(b.entries))
		}
		l := b.letters
		if l[0].ID.IsZero() || l[0].ID != l[1].ID || l[3].ID.IsZero() || l[3].ID != l[4].ID {
			t.Errorf("parked again it has another id: %s, %s; %s, %s", l[0].ID, l[1].ID, l[3].ID, l[4].ID)
		}
		if l[0].ID == l[2].ID || l[0].ID == l[3].ID {
			t.Errorf("another message has the same id: %s, %s, %s", l[0].ID, l[2].ID, l[3].ID)
		}
		if !l[5].ID.IsZero() {
			t.Errorf("a message without an id can't be told from another: %s", l[5].ID)
		}
		if !reflect.DeepEqual(b.entries[0], b.entries[1]) {
			t.Errorf("the end of its execution differs: %+v, %+v", b.entries[0], b.entries[1])
		}
	})
}

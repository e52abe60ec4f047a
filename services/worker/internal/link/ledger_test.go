package link

import (
	"fmt"
	"slices"
	"testing"
)

// tag is a delivery that writes down how it was acknowledged.
type tag struct {
	n     int
	log   *[]string
	stale bool
}

func (t *tag) Ack() bool { *t.log = append(*t.log, fmt.Sprint(t.n)); return true }
func (t *tag) AckMultiple(n int) bool {
	*t.log = append(*t.log, fmt.Sprintf("≤%d(%d)", t.n, n))
	return true
}
func (t *tag) Stale() bool { return t.stale }

func TestLedgerAcknowledgesByAsFewFramesAsOrderAllows(t *testing.T) {
	t.Parallel()
	var log []string
	l := newLedger()
	receipts := map[int]*receipt{}
	for n := 1; n <= 9; n++ {
		receipts[n] = l.add(&tag{n: n, log: &log}, 1)
	}
	ack := func(want []string, tags ...int) {
		t.Helper()
		log = nil
		for _, n := range tags {
			receipts[n].Ack()
			receipts[n].Ack() // a second time: nothing
		}
		l.flush()
		if !slices.Equal(log, want) {
			t.Errorf("acknowledging %v sent %v, want %v", tags, log, want)
		}
	}
	ack([]string{"≤3(3)"}, 3, 1, 2)
	ack([]string{"6", "5"}, 6, 5)        // 4 is still in hand
	ack([]string{"≤7(2)", "9"}, 9, 7, 4) // 5 and 6 are acknowledged already: they aren't counted
	ack([]string{"8"}, 8)
	ack(nil)
	if l.head.next != &l.head {
		t.Error("something stays in the ledger")
	}
}

func TestMQ17_AcknowledgementsOfAnOldChannelDoNothing(t *testing.T) {
	t.Parallel()
	var log []string
	l := newLedger()
	old := []*receipt{l.add(&tag{n: 1, log: &log}, 1), l.add(&tag{n: 2, log: &log}, 1)}
	old[0].Ack()
	fresh := l.add(&tag{n: 1, log: &log}, 2)
	old[1].Ack()
	l.flush()
	if len(log) > 0 {
		t.Errorf("sent %v on a channel that is gone", log)
	}
	fresh.Ack()
	l.flush()
	if !slices.Equal(log, []string{"1"}) {
		t.Errorf("sent %v, want the one of the new channel", log)
	}
}

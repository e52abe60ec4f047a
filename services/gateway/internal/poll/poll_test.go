package poll

import (
	"testing"
	"testing/synctest"
	"time"
)

func woken(w *Waiter) bool {
	select {
	case <-w.Look():
		return true
	default:
		return false
	}
}

func TestWakeTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRegistry()
		defer r.Stop()
		r.Live(true)
		a, _ := r.Add("q")
		b, _ := r.Add("q")
		other, _ := r.Add("other")
		r.Wake("q")
		if !woken(a) || woken(b) || woken(other) {
			t.Error("the first is woken, and nobody else")
		}
		r.Wake("q")
		r.Wake("q")
		if !woken(a) || !woken(b) {
			t.Error("two events wake two")
		}
		r.Wake("q") // a or b; whoever closes passes it on
		a.Close()
		if !woken(b) {
			t.Error("a look that was asked for is lost with its request")
		}
		b.Close()
		other.Close()
		if r.Len() != 0 || len(r.queues) != 0 {
			t.Errorf("%d are left in %v", r.Len(), r.queues)
		}
	})
}

func TestLooksWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRegistry()
		w, _ := r.Add("q")
		begun := time.Now()
		<-w.Look()
		if took := time.Since(begun); took > lookEvery {
			t.Errorf("without events: a look after %s", took)
		}
		r.Live(true)
		<-w.Look()
		begun = time.Now()
		<-w.Look()
		if took := time.Since(begun); took < netEvery-lookEvery {
			t.Errorf("with events: a look after %s", took)
		}
		r.Stop()
		<-w.Ended()
		w.Close()
	})
}

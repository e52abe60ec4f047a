package reply

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

func TestFind(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lists []string
		want  string
		ref   string
		found bool
	}{
		"nothing":       {[]string{`[]`, `[{"t":"ok","n":"set","o":1}]`}, "null", "", false},
		"a failed try":  {[]string{`[{"t":"err","n":"answer","e":{}}]`}, "null", "", false},
		"the first":     {[]string{`[{"t":"ok","n":"set","o":1}]`, `[{"t":"ok","n":"answer","o":{"status":201}},{"t":"ok","n":"other","o":2}]`}, `{"status":201}`, "", true},
		"no output":     {[]string{`[{"t":"ok","n":"answer"}]`}, "null", "", true},
		"elsewhere":     {[]string{`[{"t":"ok","n":"answer","r":{"r":"abc","s":9}}]`}, "null", "abc", true},
		"others' large": {[]string{`[{"t":"ok","n":"set","r":{"r":"abc"}},{"t":"ok","n":"other","o":2}]`}, "2", "", true},
	} {
		lists := make([]json.RawMessage, len(tc.lists))
		for i, l := range tc.lists {
			lists[i] = json.RawMessage(l)
		}
		got, ok, err := Find(lists, []string{"answer", "other"})
		out, _ := json.Marshal(got.Output)
		if err != nil || ok != tc.found || string(out) != tc.want || got.Ref.Ref != tc.ref {
			t.Errorf("%s: %s %+v %t %v", name, out, got.Ref, ok, err)
		}
	}
	if _, _, err := Find([]json.RawMessage{json.RawMessage(`{`)}, []string{"a"}); err == nil {
		t.Error("what can't be read is found")
	}
}

// reports is a database with one report.
type reports struct {
	mu    sync.Mutex
	at    []time.Time // when it was asked
	ready bool
	err   error
}

func (r *reports) read(_ context.Context, since []store.ReportsAfter) ([]protocol.StoredReport, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, time.Now())
	if r.err != nil {
		return nil, r.err
	}
	if !r.ready || since[0].Seq >= 1 {
		return nil, nil
	}
	return []protocol.StoredReport{{Execution: since[0].Execution, Attempt: 1, Seq: 1, Events: json.RawMessage(`[{"t":"ok","n":"answer","o":7}]`)}}, nil
}

func (r *reports) set(ready bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready, r.err = ready, err
}

// TestWaits: an event is heard at once; without events it takes a tenth of a second; lost events cost two seconds; errors end nothing.
func TestWaits(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		live, told bool
		most       time.Duration
	}{
		"told": {true, true, 0}, "without events": {false, false, askEvery}, "a lost event": {true, false, netEvery + askEvery},
	} {
		synctest.Test(t, func(t *testing.T) {
			db := &reports{err: errors.New("away")}
			r := NewRegistry(db.read, slog.New(slog.DiscardHandler))
			r.Live(tc.live)
			w := r.Add(protocol.ID{1}, []string{"answer"})
			other := r.Add(protocol.ID{1}, []string{"answer"})
			time.Sleep(250 * time.Millisecond)
			db.set(true, nil)
			begun := time.Now()
			if tc.told {
				r.Changed(protocol.ID{1})
			}
			<-w.Done()
			<-other.Done()
			if took := time.Since(begun); took > tc.most {
				t.Errorf("%s: it took %s", name, took)
			}
			if w.Answer().Output != 7 {
				t.Errorf("%s: %+v", name, w.Answer())
			}
			w.Close()
			w.Close()
			other.Close()
			if r.Len() != 0 {
				t.Errorf("%d wait", r.Len())
			}
			db.mu.Lock()
			asked := len(db.at)
			db.mu.Unlock()
			time.Sleep(5 * time.Second)
			if db.mu.Lock(); len(db.at) != asked {
				t.Errorf("%s: nobody waits, and it asks", name)
			}
			db.mu.Unlock()
			if err := r.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

package protocol

import (
	"testing"
	"time"
)

func TestRetryRule(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, state := range []State{Queued, Running, Waiting, Succeeded, Failed, Cancelled, TimedOut} {
		r := Row{State: state, Attempt: 6, Seq: 3, Deaths: PoisonDeaths, Retries: 1, FinishedAt: now}
		before := r
		may := state == Failed || state == Cancelled || state == TimedOut
		if whyNot := r.retry(now); (whyNot == "") != may {
			t.Errorf("%s: %q", state, whyNot)
		}
		if !may {
			if r != before {
				t.Errorf("%s was changed: %+v", state, r)
			}
			continue
		}
		if want := (Row{State: Queued, Attempt: 7, Retries: 2, QueuedAt: now}); r != want {
			t.Errorf("%+v", r)
		}
		// What older attempts still send is old news, and a suspect it is no more.
		if r.judge(&Entry{Kind: EntryFinal, Execution: r.ID, Attempt: 6, Seq: 4}) != oldNews || r.Deaths >= SuspectDeaths {
			t.Errorf("%+v", r)
		}
	}
}

func TestPauseRule(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ada, sale := PausedBy("ada", "look"), FlowPaused("bob", "sale")
	web := NodeTypePaused("http.request", "bob", "the shop: is down")
	if pausedType(web) != "http.request" || pausedType(ada) != "" || pausedType(sale) != "" {
		t.Errorf("%q %q %q", pausedType(web), pausedType(ada), pausedType(sale))
	}
	for _, tt := range []struct {
		name  string
		row   Row
		text  string
		want  string // Paused afterwards
		taken bool
	}{
		{"queued", Row{State: Queued}, ada, ada, true},
		{"running", Row{State: Running}, ada, ada, true},
		{"waiting", Row{State: Waiting}, sale, sale, true},
		{"ended", Row{State: Failed}, ada, "", false},
		{"being cancelled", Row{State: Running, Cancel: Cancelled}, ada, "", false},
		{"twice", Row{State: Queued, Paused: ada}, PausedBy("eve", "too"), ada, false},
		{"a person's stays when its flow is paused", Row{State: Queued, Paused: ada}, sale, ada, false},
		{"a person's is put over the flow's", Row{State: Queued, Paused: sale}, ada, ada, true},
		{"a person's is put over a node type's", Row{State: Queued, Paused: web}, ada, ada, true},
	} {
		r := tt.row
		if whyNot := r.pause(tt.text); (whyNot == "") != tt.taken || r.Paused != tt.want {
			t.Errorf("%s: %q, paused %q", tt.name, whyNot, r.Paused)
		}
	}
	id := ID{1}
	standing := Pauses{Flows: map[ID]string{id: sale}, Types: map[string]bool{"http.request": true}}
	for _, tt := range []struct {
		row  Row
		want string
	}{{Row{Paused: ada}, ""}, {Row{Paused: web}, web}, {Row{Flow: id, Paused: ada}, sale}, {Row{Flow: id, Paused: web}, sale}, {Row{Paused: NodeTypePaused("sql.query", "x", "y")}, ""}} {
		if got := standing.holds(&tt.row); got != tt.want {
			t.Errorf("%+v is held by %q, want %q", tt.row, got, tt.want)
		}
	}
	r := Row{State: Queued, Attempt: 3, Seq: 2, Paused: ada}
	if r.claim(Claim{Attempt: 3}, true, now) != Stale {
		t.Error("what is paused was claimed")
	}
	r.resume(now)
	if r.Attempt != 4 || r.Held() || r.State != Queued {
		t.Errorf("its task may have been refused a claim: it needs a new attempt: %+v", r)
	}
	r = Row{State: Running, Owner: id, Attempt: 3, Run: 7}
	if ef := r.apply(&Entry{Kind: EntryYield, Attempt: 3, Seq: 1, Pause: web}, now); !ef.handOut || r.Paused != web || r.State != Queued || r.Attempt != 4 {
		t.Errorf("a step of a paused type: %+v", r)
	}
	r.finish(Succeeded, now)
	if r.Paused != "" {
		t.Error("what has ended isn't paused")
	}
}

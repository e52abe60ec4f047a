package protocol

import (
	"encoding/json"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

var (
	t0 = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	sA = ID{1}
	sB = ID{2}
)

func TestClaim(t *testing.T) {
	t.Parallel()
	c := Claim{Session: sA, Attempt: 2, Run: 7}
	for name, tc := range map[string]struct {
		row   Row
		alive bool
		want  Answer
		owner ID
	}{
		"queued and free":            {Row{State: Queued, Attempt: 2}, true, Granted, sA},
		"asked again by the owner":   {Row{State: Running, Attempt: 2, Owner: sA, Run: 7}, true, Granted, sA},
		"same session, other run":    {Row{State: Running, Attempt: 2, Owner: sA, Run: 8}, true, Stale, sA},
		"owned by another":           {Row{State: Running, Attempt: 2, Owner: sB, Run: 7}, true, Stale, sB},
		"older attempt":              {Row{State: Queued, Attempt: 3}, true, Stale, ID{}},
		"waiting is not queued":      {Row{State: Waiting, Attempt: 2}, true, Stale, ID{}},
		"final":                      {Row{State: Succeeded, Attempt: 2}, true, Stale, ID{}},
		"on hold":                    {Row{State: Queued, Attempt: 2, Hold: "paused"}, true, Stale, ID{}},
		"flagged":                    {Row{State: Queued, Attempt: 2, Cancel: Cancelled}, true, Stale, ID{}},
		"session dead":               {Row{State: Queued, Attempt: 2}, false, SessionDead, ID{}},
		"session dead, though owner": {Row{State: Running, Attempt: 2, Owner: sA, Run: 7}, false, SessionDead, sA},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := tc.row
			if got := r.claim(c, tc.alive, t0); got != tc.want || r.Owner != tc.owner {
				t.Errorf("got %s, owner %s; want %s, owner %s", got, r.Owner, tc.want, tc.owner)
			}
		})
	}
}

func TestJudgeEntry(t *testing.T) {
	t.Parallel()
	owned := Row{State: Running, Attempt: 2, Seq: 3, Owner: sA, Run: 7}
	entry := Entry{Kind: EntryStep, Attempt: 2, Session: sA, Run: 7, Seq: 4, Base: 3}
	for name, tc := range map[string]struct {
		row  Row
		edit func(*Entry)
		want verdict
	}{
		"next":                  {owned, func(*Entry) {}, accepts},
		"repeated":              {owned, func(e *Entry) { e.Seq = 3 }, oldNews},
		"gap":                   {owned, func(e *Entry) { e.Seq, e.Base = 6, 5 }, behind},
		"older attempt":         {owned, func(e *Entry) { e.Attempt = 1 }, oldNews},
		"other session":         {owned, func(e *Entry) { e.Session = sB }, oldNews},
		"other run":             {owned, func(e *Entry) { e.Run = 8 }, oldNews},
		"unclaimed on an owned": {owned, func(e *Entry) { e.Session, e.Run = ID{}, 0 }, oldNews},
		"unclaimed on a free":   {Row{State: Queued, Attempt: 2}, func(e *Entry) { e.Session, e.Run, e.Seq, e.Base = ID{}, 0, 1, 0 }, accepts},
		"claimed on a free":     {Row{State: Queued, Attempt: 2}, func(*Entry) {}, oldNews},
		"waiting":               {Row{State: Waiting, Attempt: 2}, func(e *Entry) { e.Session, e.Run = ID{}, 0 }, oldNews},
		"final":                 {Row{State: Cancelled, Attempt: 2}, func(e *Entry) { e.Session, e.Run = ID{}, 0 }, oldNews},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := entry
			tc.edit(&e)
			if got := tc.row.judge(&e); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestFlaggedEndsWhereverAnOwnerIsCleared(t *testing.T) {
	t.Parallel()
	flagged := Row{ID: ID{9}, State: Running, Attempt: 2, Owner: sA, Run: 7, Cancel: TimedOut}
	for name, do := range map[string]func(*Row) effect{
		"suspend": func(r *Row) effect { return r.apply(&Entry{Kind: EntrySuspend, Seq: 1}, t0) },
		"yield":   func(r *Row) effect { return r.apply(&Entry{Kind: EntryYield, Seq: 1}, t0) },
		"recover": func(r *Row) effect { return r.recover(sA, t0) },
	} {
		r := flagged
		ef := do(&r)
		if r.State != TimedOut || !r.Owner.IsZero() || ef.result == nil || ef.result.Error.Code != "deadline" {
			t.Errorf("%s: row %+v, effect %+v", name, r, ef)
		}
	}
}

func TestPoisonAtTheFifthDeath(t *testing.T) {
	t.Parallel()
	r := Row{ID: ID{9}, State: Running, Attempt: 1, Owner: sA, Run: 7}
	for death := 1; death <= PoisonDeaths; death++ {
		r.State, r.Owner = Running, sA
		ef := r.recover(sA, t0)
		if last := death == PoisonDeaths; (r.State == Failed) != last || (ef.dead != nil) != last {
			t.Fatalf("death %d: %+v, %+v", death, r, ef)
		}
	}
	if ef := r.recover(sA, t0); ef.dead != nil || r.Deaths != PoisonDeaths {
		t.Errorf("recovering it again changed it: %+v %+v", r, ef)
	}
}

func TestCancelWithoutAnOwnerEndsAtOnce(t *testing.T) {
	t.Parallel()
	for _, s := range []State{Queued, Waiting} {
		r := Row{State: s, Attempt: 1}
		if changed, owned, ef := r.cancel(Cancelled, t0); !changed || owned || r.State != Cancelled || ef.result == nil {
			t.Errorf("%s: %+v", s, r)
		}
	}
	r := Row{State: Running, Attempt: 1, Owner: sA}
	if changed, owned, _ := r.cancel(Cancelled, t0); !changed || !owned || r.State != Running || r.Cancel != Cancelled {
		t.Errorf("owned: %+v", r)
	}
	if changed, _, _ := r.cancel(TimedOut, t0); changed || r.Cancel != Cancelled {
		t.Errorf("the second order replaced the first: %+v", r)
	}
}

func TestEventsKeepNumbersExactly(t *testing.T) {
	t.Parallel()
	in := []flow.Event{{Type: flow.EventSucceeded, Node: "a", Output: map[string]any{"n": 9007199254740993, "big": json.Number("123456789012345678901234567890"), "d": 0.1}, At: t0}}
	raw, err := EncodeEvents(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := DecodeEvents([]json.RawMessage{raw})
	if err != nil {
		t.Fatal(err)
	}
	again, err := EncodeEvents(out)
	if err != nil || string(raw) != string(again) {
		t.Errorf("%s\n%s\n%v", raw, again, err)
	}
	if m := out[0].Output.(map[string]any); m["n"] != 9007199254740993 {
		t.Errorf("n is %v (%T)", m["n"], m["n"])
	}
}

func TestIDText(t *testing.T) {
	t.Parallel()
	const text = "0198c5b2-7d1e-7c3a-9f00-0123456789ab"
	id, err := ParseID(text)
	if err != nil || id.String() != text {
		t.Fatalf("%v %v", id, err)
	}
	for _, bad := range []string{"", "x", "0198c5b2-7d1e-7c3a-9f00-0123456789ag", "0198c5b27d1e7c3a9f000123456789ab"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q was taken for an id", bad)
		}
	}
	var none ID
	b, _ := json.Marshal(Task{})
	var task Task
	if err := json.Unmarshal(b, &task); err != nil || task.ID != none {
		t.Errorf("%s: %v", b, err)
	}
}

func TestGoneAreOwnersWhoseAttemptIsOver(t *testing.T) {
	owned := []Orphan{{Run: 1}, {Run: 2}}
	if got := gone(owned, []int64{1, 3}); len(got) != 1 || got[0] != 3 {
		t.Errorf("gone %v, want [3]", got)
	}
	if got := gone(nil, nil); got != nil {
		t.Errorf("gone %v of none", got)
	}
}

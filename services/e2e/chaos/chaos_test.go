package chaos

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		duration, calm time.Duration
		steps          int // 0: refused
	}{
		{2 * time.Minute, 10 * time.Second, 7},
		{10 * time.Minute, 10 * time.Second, 38},
		{30 * time.Second, 4 * time.Second, 7},
		{20 * time.Second, 4 * time.Second, 0},
		{time.Second, 4 * time.Second, 0},
	} {
		for seed := range uint64(50) {
			steps, err := Plan(seed, tc.duration, tc.calm)
			if (err != nil) != (tc.steps == 0) || len(steps) != tc.steps {
				t.Fatalf("%+v: %d steps, %v", tc, len(steps), err)
			}
			again, _ := Plan(seed, tc.duration, tc.calm)
			if !slices.Equal(steps, again) {
				t.Fatalf("seed %d gave two plans", seed)
			}
			seen := map[Kind]bool{}
			last := tc.calm
			for _, s := range steps {
				seen[s.Kind] = true
				if s.At < last || s.At+s.Hold > tc.duration-tc.calm || (s.Hold > 0) != s.Kind.Pauses() {
					t.Errorf("seed %d: %+v in %+v", seed, s, steps)
				}
				last = s.At + s.Hold
			}
			if len(steps) > 0 && len(seen) != len(kinds()) {
				t.Errorf("seed %d: only %v", seed, slices.Collect(maps.Keys(seen)))
			}
		}
	}
	one, _ := Plan(1, 2*time.Minute, 10*time.Second)
	two, _ := Plan(2, 2*time.Minute, 10*time.Second)
	if slices.Equal(one, two) {
		t.Error("two seeds gave one plan")
	}
}

func at(s float64) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(s * float64(time.Second)))
}

// good is an execution of one step that went well.
func good() evidence {
	return evidence{
		steps:    []string{"a"},
		requests: []request{{Sent: at(0), Ended: at(0.1), ID: "x"}},
		records:  map[string]record{"x": {"succeeded", at(0), at(2)}},
		visits:   map[stepKey][]Visit{{"x", "a"}: {{Attempt: 1, At: at(1), Answered: true}}},
		done:     map[stepKey][]confirmation{{"x", "a"}: {{1, at(1.5)}}},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	k := stepKey{"x", "a"}
	for name, tc := range map[string]struct {
		change func(*evidence)
		want   func(*Counts)
		kept   bool
	}{
		"all well": {func(*evidence) {}, func(*Counts) {}, true},
		"in flight, repeated": {func(e *evidence) {
			e.visits[k] = []Visit{{Attempt: 1, At: at(1)}, {Attempt: 2, At: at(1.2)}}
			e.done[k] = []confirmation{{2, at(1.5)}}
		}, func(c *Counts) { c.Calls, c.Repeated = 2, 1 }, true},
		"an old call comes late": {func(e *evidence) {
			e.visits[k] = []Visit{{Attempt: 2, At: at(1)}, {Attempt: 1, At: at(3)}}
			e.done[k] = []confirmation{{2, at(1.5)}}
		}, func(c *Counts) { c.Calls, c.Repeated = 2, 1 }, true},
		"a later attempt calls again": {func(e *evidence) { e.visits[k] = append(e.visits[k], Visit{Attempt: 2, At: at(1.2)}) },
			func(c *Counts) { c.Calls, c.Doubled = 2, 1 }, false},
		"the same attempt calls after its report": {func(e *evidence) { e.visits[k] = append(e.visits[k], Visit{Attempt: 1, At: at(1.6)}) },
			func(c *Counts) { c.Calls, c.Doubled = 2, 1 }, false},
		"not there":      {func(e *evidence) { delete(e.records, "x") }, func(c *Counts) { c.Lost, c.Final, c.Succeeded, c.Calls = 1, 0, 0, 0 }, false},
		"not final":      {func(e *evidence) { e.records["x"] = record{State: "running"} }, func(c *Counts) { c.Lost, c.Final, c.Succeeded, c.Calls = 1, 0, 0, 0 }, false},
		"failed":         {func(e *evidence) { e.records["x"] = record{"failed", at(0), at(2)} }, func(c *Counts) { c.Succeeded, c.Otherwise = 0, map[string]int{"failed": 1} }, false},
		"never called":   {func(e *evidence) { delete(e.visits, k) }, func(c *Counts) { c.Calls, c.Missing = 0, 1 }, false},
		"recorded twice": {func(e *evidence) { e.done[k] = append(e.done[k], confirmation{1, at(1.6)}) }, func(c *Counts) { c.Missing = 1 }, false},
		"nobody was told": {func(e *evidence) {
			e.requests[0].ID, e.requests[0].Fail, e.requests[0].Why = "", "connection lost", "EOF"
		},
			func(c *Counts) {
				c.Accepted, c.Unheard, c.ErrorRate, c.Errors = 0, 1, 1, map[string]int{"connection lost": 1}
				c.FirstOf["connection lost"] = "EOF"
			}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := good()
			tc.change(&e)
			want := Counts{FirstOf: map[string]string{}, Requests: 1, Accepted: 1, Final: 1, Succeeded: 1, Calls: 1, Errors: map[string]int{}, Otherwise: map[string]int{}}
			tc.want(&want)
			got := judge(e)
			if (len(got.Broken()) == 0) != tc.kept {
				t.Errorf("broken: %v", got.Broken())
			}
			if (len(got.Examples) == 0) != (len(got.Broken()) == 0) && got.Accepted > 0 {
				t.Errorf("examples: %v", got.Examples)
			}
			if got.Examples = nil; !reflect.DeepEqual(got, want) {
				t.Errorf("%+v\nwant %+v", got, want)
			}
		})
	}
}

// TestRecoveries: ten executions a second that take a second each; from second 10 to 12 nothing ends, and one request is refused at 12.5.
func TestRecoveries(t *testing.T) {
	t.Parallel()
	e := evidence{records: map[string]record{}}
	for i := range 290 {
		begun := float64(i) / 10
		ended := begun + 1
		if ended >= 10 && ended < 12 {
			ended = 12
		}
		id := string(rune('A' + i))
		e.requests = append(e.requests, request{Sent: at(begun), Ended: at(begun), ID: id})
		e.records[id] = record{"succeeded", at(begun), at(ended)}
	}
	e.requests = append(e.requests, request{Sent: at(11), Ended: at(12.5), Fail: "HTTP 503"})
	// Due at 17, ended at 19; and one that was due after the next fault, which is to blame.
	e.records["late"], e.records["other"] = record{"succeeded", at(15), at(19)}, record{"succeeded", at(19), at(25)}
	got, bound := recoveries([]fault{{Step: Step{Kind: Postgres}, at: at(10)}, {Step: Step{Kind: Redis}, at: at(20), held: 3 * time.Second}}, e, at(0), at(30), 10)
	if bound != 2*time.Second || len(got) != 2 {
		t.Fatalf("%v %+v", bound, got)
	}
	near := func(f *float64, want float64) bool { return f != nil && *f > want-.15 && *f < want+.15 }
	if p := got[0]; !near(p.First, 2) || !near(&p.Silence, 2) || !near(p.Steady, 2) || p.Failed != 1 || p.Troubled != 9 || p.Late != 1 {
		t.Errorf("%+v: first %s, steady %s", p, seconds(p.First), seconds(p.Steady))
	}
	if r := got[1]; !near(r.First, 0) || !near(r.Steady, 0) || r.Failed != 0 || r.Troubled != 5 || r.Late != 1 || r.Held != 3 {
		t.Errorf("%+v: first %s, steady %s", r, seconds(r.First), seconds(r.Steady))
	}
	never, _ := recoveries([]fault{{Step: Step{Kind: Postgres}, at: at(40)}}, e, at(0), at(50), 10)
	if p := never[0]; p.First != nil || p.Steady != nil || p.Silence != 10 {
		t.Errorf("%+v", p)
	}
}

func TestFailKind(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"":                   nil,
		"HTTP 503":           &refusal{503, "no"},
		"connection refused": &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"connection lost":    io.EOF,
		"no answer in time":  context.DeadlineExceeded,
		"no answer":          errors.New("something"),
	} {
		if got := failKind(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// TestBreakOneMends: whatever happens while something is stopped, it goes on afterwards.
func TestBreakOneMends(t *testing.T) {
	t.Parallel()
	mended := 0
	o := Options{Break: func(context.Context, Step) (Broken, error) {
		return Broken{What: "it", Mend: func(ctx context.Context) error {
			mended++
			return ctx.Err() // the drill's own end must not keep it from mending
		}}, nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	if d := o.breakOne(ctx, Step{Kind: Redis, Hold: time.Millisecond}); d.err != nil || mended != 1 || d.held == 0 {
		t.Errorf("%+v, mended %d times", d, mended)
	}
	cancel()
	if d := o.breakOne(ctx, Step{Kind: Redis, Hold: time.Hour}); d.err != nil || mended != 2 {
		t.Errorf("after the end: %+v, mended %d times", d, mended)
	}
	o.Break = func(context.Context, Step) (Broken, error) { return Broken{}, errors.New("not there") }
	if d := o.breakOne(t.Context(), Step{Kind: Worker}); d.err == nil {
		t.Error("a fault that could not be done counts as done")
	}
}

// TestSteadyAndTarget: the rate is kept, failures have their names, the target counts by key and refuses strangers.
func TestSteadyAndTarget(t *testing.T) {
	t.Parallel()
	w, err := NewTarget(func(*http.Request) {})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/flows/f/executions" || r.Header.Get("Authorization") != "Bearer t" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
		if asked.Add(1)%4 == 0 {
			http.Error(res, "full", http.StatusServiceUnavailable)
			return
		}
		res.WriteHeader(http.StatusAccepted)
		io.WriteString(res, `{"id":"x"}`)
	}))
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	all := newClient(s.URL, "t").steady(ctx, "f", 40)
	failed := 0
	for _, r := range all {
		if (r.Fail == "") != (r.ID == "x") || (r.Fail != "" && r.Fail != "HTTP 503") {
			t.Errorf("%+v", r)
		}
		if r.Fail != "" {
			failed++
		}
	}
	if len(all) < 20 || len(all) > 41 || failed != int(asked.Load())/4 {
		t.Errorf("%d requests at 40 a second, %d of %d failed", len(all), failed, asked.Load())
	}

	for range 2 {
		req, _ := http.NewRequest("POST", w.URL+"/a", nil)
		req.Header.Set("Idempotency-Key", "x/a/-")
		req.Header.Set("X-Flow-Attempt", "2")
		res, err := http.DefaultClient.Do(req)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		res.Body.Close()
	}
	if res, err := http.Get(w.URL + "/a"); err != nil || res.StatusCode != 400 {
		t.Errorf("a stranger: %v %v", res, err)
	}
	if v := w.visits(); len(v) != 1 || len(v[stepKey{"x", "a"}]) != 2 || w.Total() != 2 || len(w.Visits("x", "a")) != 2 || w.Visits("x", "a")[0].Attempt != 2 {
		t.Errorf("%+v", v)
	}
}

package main

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"flowplatform/scripts/internal/running"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for args, ok := range map[string]bool{
		"":                        true,
		"--executions 5000":       true,
		"--max-workers 3":         true,
		"--executions 100":        false,
		"--executions 1000000":    false,
		"--max-workers 2":         false,
		"--bound 1s":              false,
		"--bound 2m and more":     false,
		"--no-such-thing":         false,
		"--file x.svg --bound 2m": true,
	} {
		if _, err := parse(strings.Fields(args)); (err == nil) != ok {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// decided is what the leader says of a change.
func decided(at time.Time, from, to int, outcome string) scaling {
	var v scaling
	b, _ := json.Marshal(map[string]any{"decisions": []any{map[string]any{"pool": "default", "outcome": outcome, "at": at, "detail": map[string]any{"from": from, "to": to}}}})
	if err := json.Unmarshal(b, &v); err != nil {
		panic(err)
	}
	return v
}

// told is a record of a burst of 5,000 that goes well.
func told(t *testing.T) *record {
	t.Helper()
	begun := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return begun.Add(time.Duration(s * float64(time.Second))) }
	r := &record{Begun: begun, Executions: 5000}
	r.add(sample{At: at(0.1), Depth: 500, Desired: 2, Reporting: 2}, decided(at(-60), 2, 9, "done")) // of another day
	r.add(sample{At: at(0.2), Depth: 5000, Busy: 2, Desired: 2, Reporting: 2}, decided(at(0.15), 2, 7, "refused: a deployment"))
	r.add(sample{At: at(1), Depth: 4500, Answered: 400, Busy: 2, Desired: 6, Reporting: 2}, decided(at(0.8), 2, 6, "done"))
	r.FirstTask, r.FirstWorker = at(2), "0123456789"
	r.add(sample{At: at(10), Answered: 5000, Busy: 6, Desired: 6, Reporting: 6}, scaling{})
	r.add(sample{At: at(20), Answered: 5000, Desired: 2, Reporting: 3}, decided(at(19), 6, 2, "done"))
	if r.add(sample{At: at(21), Answered: 5000, Desired: 2, Reporting: 2}, scaling{}) {
		t.Error("over at once")
	}
	if !r.add(sample{At: at(25), Answered: 5000, Desired: 2, Reporting: 2}, scaling{}) {
		t.Error("not over")
	}
	r.Calls, r.Succeeded = 5000, 5000
	return r
}

func TestRecord(t *testing.T) {
	t.Parallel()
	r := told(t)
	for what, got := range map[string]time.Time{"0.2": r.Marked, "0.8": r.Decided, "10": r.Drained, "19": r.Lowered, "21": r.Down} {
		want, err := time.ParseDuration(what + "s")
		if err != nil || got.Sub(r.Begun) != want {
			t.Errorf("%s after the beginning, want %s", got.Sub(r.Begun), want)
		}
	}
	if r.DecidedTo != 6 || len(r.missed()) != 0 {
		t.Errorf("to %d, missed %v", r.DecidedTo, r.missed())
	}
	if busy, depth, rate := r.peak(); busy != 6 || depth != 5000 || rate < 400 {
		t.Errorf("peak: %d workers, %d wait, %v a second", busy, depth, rate)
	}
	var out strings.Builder
	if err := r.print(&out); err != nil || !strings.Contains(out.String(), "a new worker (01234567) begins its first task") {
		t.Errorf("%v\n%s", err, out.String())
	}
	for want, spoil := range map[string]func(*record){
		"promised are 3s":         func(r *record) { r.FirstTask = r.Marked.Add(3100 * time.Millisecond) },
		"no new worker":           func(r *record) { r.FirstTask = time.Time{} },
		"never passed":            func(r *record) { r.Marked = time.Time{} },
		"come down":               func(r *record) { r.Down = time.Time{} },
		"1 steps were done again": func(r *record) { r.Repeated = 1 },
		"4999 of 5000":            func(r *record) { r.Succeeded-- },
	} {
		r := told(t)
		spoil(r)
		if m := r.missed(); len(m) != 1 || !strings.Contains(m[0], want) {
			t.Errorf("%v, want %q", m, want)
		}
	}
}

func TestPicture(t *testing.T) {
	t.Parallel()
	r := told(t)
	r.FirstTask = time.Time{}
	svg := r.svg()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{"mark passed, 0.2 s", "decided, 0.8 s", "at the minimum, 21.0 s"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(svg, "first task") || strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error("what wasn't seen is drawn")
	}
}

// The worker that calls is found by its socket; here it is this process.
func TestWhoCalls(t *testing.T) {
	t.Parallel()
	w, err := newWorld(func(pid int) string {
		if pid == os.Getpid() {
			return "mine"
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, key := range []string{"a/call/-", "b/call/-", "a/call/-"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.target.URL+"/call", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", key)
		req.Header.Set("X-Flow-Attempt", "1")
		res, err := http.DefaultClient.Do(req)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v %+v", err, res)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	if calls, repeated := w.counts(); calls != 3 || repeated != 1 {
		t.Errorf("%d calls, %d repeated", calls, repeated)
	}
	at, who := w.firstBut(nil)
	for until := time.Now().Add(10 * time.Second); who == "" && time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		at, who = w.firstBut(nil)
	}
	if who != "mine" || time.Since(at) > time.Minute {
		t.Errorf("%q called at %s", who, at)
	}
	if _, who := w.firstBut([]running.Allocation{{ID: "mine"}}); who != "" {
		t.Errorf("%q isn't new", who)
	}
}

// What was changed is put back as it was: a setting that nobody had set is none again, and the job's counts stay.
func TestRestore(t *testing.T) {
	t.Parallel()
	var put, job map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /api/v1/settings":
			io.WriteString(w, `{"items":[{"name":"MIN_WORKERS","effective":3,"set":3},{"name":"MAX_WORKERS","effective":20}]}`)
		case "PUT /api/v1/settings":
			json.NewDecoder(r.Body).Decode(&put)
		case "GET /v1/job/worker":
			io.WriteString(w, `{"ID":"worker","JobModifyIndex":18446744073709551615,"TaskGroups":[{"Count":5,"Tasks":[{"Name":"worker","Env":{"MAX_CONCURRENT_FLOWS":"1000"}}]}]}`)
		case "POST /v1/jobs":
			d := json.NewDecoder(r.Body)
			d.UseNumber()
			d.Decode(&job)
		default:
			http.NotFound(w, r)
		}
		if r.Method != http.MethodGet {
			io.WriteString(w, `{}`)
		}
	}))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	s := &stage{Platform: &running.Platform{Ports: map[string]int{"FRONT_DOOR_PORT": port, "NOMAD_PORT": port}, Client: server.Client()}, http: server.Client()}
	if err := s.remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.changed = true
	if err := s.restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	values, _ := put["values"].(map[string]any)
	if v, there := values["MAX_WORKERS"]; values["MIN_WORKERS"] != 3.0 || v != nil || !there || len(values) != len(settingNames()) {
		t.Errorf("%v", values)
	}
	b, err := json.Marshal(job)
	if err != nil || job["PreserveCounts"] != true || !strings.Contains(string(b), `"JobModifyIndex":18446744073709551615`) || !strings.Contains(string(b), `"MAX_CONCURRENT_FLOWS":"1000"`) {
		t.Errorf("%v %s", err, b)
	}
}

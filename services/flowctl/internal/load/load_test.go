package load

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestPercentiles(t *testing.T) {
	t.Parallel()
	var d []time.Duration
	for i := 100; i >= 1; i-- {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	if p := percentiles(d); p != (Percentiles{P50: 51, P95: 96, P99: 100, Max: 100}) {
		t.Errorf("%+v", p)
	}
	if p := percentiles(nil); p != (Percentiles{}) {
		t.Errorf("%+v", p)
	}
}

// TestRunCountsWhatTheServerSaw: every way in which a server may frame an answer, and connections that it closes.
func TestRunCountsWhatTheServerSaw(t *testing.T) {
	t.Parallel()
	var seen, refused atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"a":1}` || r.Header.Get("Authorization") != "Bearer t" || r.URL.Path != "/api/v1/x" {
			t.Errorf("%s %s %v", r.URL, body, err)
		}
		switch n := seen.Add(1); n % 5 {
		case 0:
			refused.Add(1)
			http.Error(w, "full", http.StatusServiceUnavailable)
		case 1: // chunked
			w.WriteHeader(202)
			fmt.Fprint(w, "part")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "rest")
		case 2:
			w.Header().Set("Connection", "close")
			w.WriteHeader(202)
		default:
			w.WriteHeader(200)
			fmt.Fprint(w, `{"status":"queued"}`)
		}
	}))
	defer s.Close()
	res, err := Run(t.Context(), "test", Options{Server: s.URL, Token: "t", Path: "/x", Body: `{"a":1}`, Connections: 4, Duration: 20 * time.Second, Count: 200})
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 200 || seen.Load() != 200 || int64(res.Errors) != refused.Load() || res.Accepted != 160 || res.FirstFail == "" || res.Latency.P50 <= 0 {
		t.Errorf("%+v; seen %d, refused %d", res, seen.Load(), refused.Load())
	}
}

func TestRunKeepsItsRate(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	defer s.Close()
	res, err := Run(t.Context(), "test", Options{Server: s.URL, Path: "/x", Connections: 8, Rate: 200, Duration: time.Second})
	if err != nil || seen.Load() > 210 || seen.Load() < 100 || res.Errors > 0 {
		t.Errorf("%d requests in a second at 200 a second: %+v %v", seen.Load(), res, err)
	}
}

func TestReadCPU(t *testing.T) {
	t.Parallel()
	before, err := ReadCPU()
	if err != nil {
		t.Fatal(err)
	}
	if d := (CPU{"gateway": 3}).Since(CPU{"gateway": 1}, 1000); d["gateway"] != 2 {
		t.Errorf("%v, %v", d, before)
	}
}

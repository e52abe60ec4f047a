package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shop is https://shop.example of the example flows. It remembers what it was asked.
type shop struct {
	url string

	mu       sync.Mutex
	calls    []string // method and path
	bodies   map[string]string
	inFlight int
	most     int
	imports  map[string]int // under way, by customer
	mostOf   int            // imports of one customer at once
	open     sync.Once
	four     chan struct{} // closed a moment after four prices were asked for at once
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{bodies: map[string]string{}, imports: map[string]int{}, four: make(chan struct{})}
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(*http.Request) (int, any){
		"GET /orders/{id}": func(r *http.Request) (int, any) {
			if r.PathValue("id") == "8" || s.count("GET /orders/7") == 1 {
				return 503, nil
			}
			return 200, map[string]any{"id": 7, "total": 150}
		},
		"GET /archive/{id}": func(*http.Request) (int, any) { return 200, map[string]any{"id": 8, "total": 80} },
		"GET /prices/{sku}": s.price,
		"POST /jobs": func(*http.Request) (int, any) {
			var job struct{ Report string }
			if err := json.Unmarshal([]byte(s.body("POST /jobs")), &job); err != nil {
				return 400, nil
			}
			return 201, map[string]any{"id": job.Report}
		},
		"GET /jobs/{id}": func(r *http.Request) (int, any) {
			switch {
			case s.count("GET /jobs/"+r.PathValue("id")) < 3:
				return 200, map[string]any{"state": "running"}
			case r.PathValue("id") == "bad":
				return 200, map[string]any{"state": "broken"}
			}
			return 200, map[string]any{"state": "done", "url": "/reports/1"}
		},
		"POST /locks/{id}":   func(*http.Request) (int, any) { return 201, nil },
		"DELETE /locks/{id}": func(*http.Request) (int, any) { return 204, nil },
		"POST /payments": func(*http.Request) (int, any) {
			if strings.Contains(s.body("POST /payments"), `"order":8`) {
				return 402, map[string]any{"error": "declined"}
			}
			return 201, map[string]any{"id": "p1"}
		},
		"POST /imports/{customer}": s.importFile,
		"POST /index":              func(*http.Request) (int, any) { return 202, nil },
		"POST /tickets":            func(*http.Request) (int, any) { return 201, nil },
		"POST /mails":              func(*http.Request) (int, any) { return 202, nil },
		"GET /orders": func(r *http.Request) (int, any) {
			order := func(state, name, country string, total float64) any {
				return map[string]any{"state": state, "total": total, "customer": map[string]any{"name": name, "country": country}}
			}
			return 200, map[string]any{"since": r.URL.Query().Get("since"), "orders": []any{order("paid", "Bo", "FR", 10.1), order("open", "Bo", "FR", 1000), order("paid", "Ada", "DE", 20), order("paid", "Ada", "DE", 0.2)}}
		},
		"GET /customers": func(*http.Request) (int, any) {
			return 200, []any{map[string]any{"id": 1, "name": "Ada"}, map[string]any{"id": 2, "name": "Robert'); DROP TABLE customers;--"}, map[string]any{"id": json.Number("9007199254740993"), "name": "Cy"}}
		},
		"GET /customers/{id}": func(*http.Request) (int, any) { return 200, map[string]any{"name": "Ada"} },
		"GET /customers/{id}/invoices": func(*http.Request) (int, any) {
			return 200, []any{map[string]any{"state": "open", "total": 30}, map[string]any{"state": "paid", "total": 50}, map[string]any{"state": "open", "total": 12.5}}
		},
		"POST /reservations":        func(*http.Request) (int, any) { return 201, map[string]any{"id": "r1"} },
		"DELETE /reservations/{id}": func(*http.Request) (int, any) { return 204, nil },
		"GET /invoices/{id}": func(r *http.Request) (int, any) {
			return 200, map[string]any{"state": map[string]string{"1": "open", "2": "paid", "3": "disputed"}[r.PathValue("id")], "mail": "ada@customer.example"}
		},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			status, v := s.remember(r), any(nil)
			if status == 0 {
				status, v = h(r)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			if v != nil {
				_ = json.NewEncoder(w).Encode(v)
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// remember writes a call down; the status is not 0 when there is something wrong with it.
func (s *shop) remember(r *http.Request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := r.Method + " " + r.URL.Path
	s.calls = append(s.calls, call)
	var body any
	if r.Method == http.MethodPost && r.ContentLength != 0 {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return 400
		}
		b, err := json.Marshal(body)
		if err != nil {
			return 400
		}
		s.bodies[call] = string(b)
	}
	if r.Header.Get("Idempotency-Key") == "" {
		return 428
	}
	return 0
}

// price lets the first four calls wait for each other: they come at once, or the test fails.
func (s *shop) price(r *http.Request) (int, any) {
	s.mu.Lock()
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	if s.inFlight == 4 {
		s.open.Do(func() { time.AfterFunc(300*time.Millisecond, func() { close(s.four) }) }) // a fifth would come within this time
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.inFlight--
		s.mu.Unlock()
	}()
	select {
	case <-s.four:
	case <-time.After(20 * time.Second):
		return 500, nil
	}
	country := map[string]string{"a": "DE", "b": "FR", "c": "DE", "d": "DE", "e": "FR"}[r.PathValue("sku")]
	if country == "" {
		return 404, nil
	}
	return 200, map[string]any{"price": 2.5, "country": country}
}

// importFile takes its time, so that imports that come at once are seen to.
func (s *shop) importFile(r *http.Request) (int, any) {
	customer := r.PathValue("customer")
	s.mu.Lock()
	s.imports[customer]++
	s.mostOf = max(s.mostOf, s.imports[customer])
	s.mu.Unlock()
	time.Sleep(150 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imports[customer]--
	return 201, nil
}

func (s *shop) count(call string) int {
	n := 0
	for _, c := range s.seen() {
		if c == call {
			n++
		}
	}
	return n
}

func (s *shop) body(call string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies[call]
}

func (s *shop) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// forget begins anew for the next example.
func (s *shop) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// counted checks how often some calls were made since the shop last forgot.
func (s *shop) counted(want map[string]int) error {
	for call, n := range want {
		if got := s.count(call); got != n {
			return fmt.Errorf("%q was called %d times, want %d; all calls: %v", call, got, n, s.seen())
		}
	}
	return nil
}

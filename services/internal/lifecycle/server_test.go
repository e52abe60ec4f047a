package lifecycle

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func serve(t *testing.T, h http.Handler) (*Server, string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Serve(&http.Server{Handler: h}, lis, func(err error) { t.Errorf("the server ended: %v", err) }), lis.Addr().String()
}

// A connection that never asked anything doesn't hold the stop up.
func TestUnusedConnectionsDontHoldTheStop(t *testing.T) {
	t.Parallel()
	s, addr := serve(t, http.NotFoundHandler())
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if res, err := http.Get("http://" + addr); err != nil { // the server has accepted the one before by now
		t.Fatal(err)
	} else {
		res.Body.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // net/http alone takes five
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// A request that has begun ends with its answer; what takes longer than the time given is cut.
func TestStopLetsRequestsEnd(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	s, addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		select {
		case <-end:
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}))
	answer := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + addr)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answer <- string(b)
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		t.Fatalf("stopped beside a request that goes on: %v", err)
	case <-time.After(3 * unusedGrace):
	}
	close(end)
	if got := <-answer; got != "done" {
		t.Errorf("the request got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

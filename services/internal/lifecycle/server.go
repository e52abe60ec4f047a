package lifecycle

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// unusedGrace is how long a connection that has brought no request may still bring one while its server stops.
const unusedGrace = 200 * time.Millisecond

// Server is an http.Server that stops within its time though clients hold connections on which they never asked anything. net/http's own Shutdown gives each of these five
// seconds, and clients make them by themselves: Go's transport dials for a request that then goes out on another connection, and keeps the new one for later.
type Server struct {
	http *http.Server

	mu     sync.Mutex
	unused map[net.Conn]struct{}
}

// Serve answers on the listener in the background. failed hears of an end that Shutdown didn't ask for. The server's ConnState is Serve's to set.
func Serve(srv *http.Server, lis net.Listener, failed func(error)) *Server {
	s := &Server{http: srv, unused: map[net.Conn]struct{}{}}
	srv.ConnState = s.state
	go func() {
		if err := srv.Serve(lis); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			failed(err)
		}
	}()
	return s
}

func (s *Server) state(c net.Conn, now http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now == http.StateNew {
		s.unused[c] = struct{}{}
		return
	}
	delete(s.unused, c)
}

// Shutdown takes no more connections and lets the requests that have begun end. What hasn't ended when ctx does is cut, and that is an error.
func (s *Server) Shutdown(ctx context.Context) error {
	cut := time.AfterFunc(unusedGrace, s.closeUnused)
	defer cut.Stop()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

func (s *Server) closeUnused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.unused {
		_ = c.Close() // the server notices, and forgets it
	}
}

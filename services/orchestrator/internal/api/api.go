// Package api is the internal HTTP API of orchestrators, /internal/v1: what workers ask. NGINX never forwards to it, and every call
// carries the platform's internal token.
//
// 200 means: committed. 503 means that nothing is known about the outcome: ask again, another orchestrator first. 4xx is a caller's mistake
// that asking again doesn't mend.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strings"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/orchestrator/internal/claims"
)

// maxBody bounds a request: 5,000 claims, or the runs of a very large worker.
const maxBody = 4 << 20

// Options of New. All are required.
type Options struct {
	Token  string // INTERNAL_TOKEN
	Open   func(context.Context, protocol.OpenSessionRequest) (protocol.SessionResponse, error)
	Renew  func(context.Context, protocol.RenewRequest) (protocol.SessionResponse, error)
	End    func(context.Context, protocol.EndSessionsRequest) error
	Claims func(context.Context, []protocol.Claim) ([]protocol.Answer, error)
	Call   func(context.Context, protocol.CallRequest) (protocol.CallAnswer, error)
	Values Values
	Log    *slog.Logger
}

// New returns the handler of /internal/v1/.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /internal/v1/sessions/open", endpoint(o.Log, checkOpen, o.Open))
	mux.Handle("POST /internal/v1/sessions/renew", endpoint(o.Log, checkRenew, o.Renew))
	mux.Handle("POST /internal/v1/sessions/end", endpoint(o.Log, checkEnd, func(ctx context.Context, r protocol.EndSessionsRequest) (struct{}, error) {
		return struct{}{}, o.End(ctx, r)
	}))
	mux.Handle("POST /internal/v1/claims", endpoint(o.Log, checkClaims, func(ctx context.Context, r protocol.ClaimsRequest) (protocol.ClaimsResponse, error) {
		answers, err := o.Claims(ctx, r.Claims)
		return protocol.ClaimsResponse{Answers: answers}, err
	}))
	mux.Handle("POST /internal/v1/calls", slots(callsAtOnce, bounded(o.Log, protocol.MaxValue+64<<10, checkCall, o.Call)))
	p := payloads{values: o.Values, log: o.Log, slots: make(chan struct{}, payloadsAtOnce)}
	mux.HandleFunc("PUT /internal/v1/payloads/{execution}/{sha256}", p.put)
	mux.HandleFunc("GET /internal/v1/payloads/{execution}/{sha256}", p.get)
	return authorized(o.Token, mux)
}

// authorized lets calls pass that carry the token. The digests have one length, so that the comparison takes one time.
func authorized(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(given))
		if !ok || token == "" || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			problem(w, http.StatusUnauthorized, "this needs the header `Authorization: Bearer <INTERNAL_TOKEN>`, with the same token as the orchestrator has")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func endpoint[Q, A any](log *slog.Logger, check func(*Q) error, do func(context.Context, Q) (A, error)) http.Handler {
	return bounded(log, maxBody, check, do)
}

// callsAtOnce bounds the memory that inputs of called flows take here.
const callsAtOnce = 16

// slots lets so many calls in at once; the others wait.
func slots(n int, next http.Handler) http.Handler {
	free := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

func bounded[Q, A any](log *slog.Logger, most int64, check func(*Q) error, do func(context.Context, Q) (A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes: ask in parts", most))
			return
		}
		if err != nil {
			problem(w, http.StatusBadRequest, fmt.Sprintf("the body could not be read: %v", err))
			return
		}
		var q Q
		if err := json.Unmarshal(body, &q); err != nil {
			problem(w, http.StatusBadRequest, fmt.Sprintf("the body is not what this call takes: %v", err))
			return
		}
		if err := check(&q); err != nil {
			problem(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		a, err := do(r.Context(), q)
		if err != nil {
			if r.Context().Err() == nil {
				log.Debug("no answer", "path", r.URL.Path, "error", err)
			}
			w.Header().Set("Retry-After", "1")
			problem(w, http.StatusServiceUnavailable, fmt.Sprintf("the outcome is not known, ask again: %v", err))
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			problem(w, http.StatusInternalServerError, fmt.Sprintf("the answer could not be written: %v", err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(out) // a caller that went away asks again
	})
}

func problem(w http.ResponseWriter, status int, detail string) {
	out, err := json.Marshal(map[string]any{"status": status, "title": http.StatusText(status), "detail": detail})
	if err != nil {
		out = []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(out)
}

func checkOpen(r *protocol.OpenSessionRequest) error {
	switch {
	case r.Session.IsZero():
		return errors.New("session is missing: a worker draws the id of its session itself")
	case r.Worker == "":
		return errors.New("worker is missing: it is the WORKER_ID")
	case len(r.Worker) > 255 || len(r.Pool) > 255 || len(r.Host) > 255 || len(r.Version) > 255 || len(r.Allocation) > 255:
		return errors.New("a name is longer than 255 bytes")
	case strings.ContainsRune(r.Worker+r.Pool+r.Host+r.Version+r.Allocation, 0):
		return errors.New("a name holds a zero byte")
	case !PoolName(r.Pool):
		return errors.New("pool is at most 64 letters, digits, - and _: it becomes part of names of queues")
	case r.Slots < 0 || r.Slots > math.MaxInt32 || r.Weight < 0 || r.Weight > math.MaxInt32:
		return errors.New("slots and weight are between 0 and 2147483647")
	}
	for _, id := range r.Ended {
		if id == r.Session {
			return errors.New("a worker can't prove the end of the session that it opens")
		}
	}
	return checkIDs("ended", r.Ended)
}

// PoolName tells whether a pool may be called so: its name becomes part of names of queues and of routing keys.
func PoolName(s string) bool {
	return len(s) <= 64 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	})
}

func checkRenew(r *protocol.RenewRequest) error {
	if r.Session.IsZero() {
		return errors.New("session is missing")
	}
	return nil
}

func checkEnd(r *protocol.EndSessionsRequest) error {
	if len(r.Sessions) == 0 {
		return errors.New("sessions is empty")
	}
	if len(r.Reason) > 255 || strings.ContainsRune(r.Reason, 0) {
		return errors.New("reason is longer than 255 bytes, or holds a zero byte")
	}
	return checkIDs("sessions", r.Sessions)
}

func checkIDs(name string, ids []protocol.ID) error {
	if len(ids) > 1000 {
		return fmt.Errorf("%s names more than 1000 sessions", name)
	}
	for i, id := range ids {
		if id.IsZero() {
			return fmt.Errorf("%s[%d] is empty", name, i)
		}
	}
	return nil
}

func checkCall(r *protocol.CallRequest) error {
	switch {
	case r.Execution.IsZero() || r.Attempt < 1 || r.Attempt > math.MaxInt32 || r.Node == "" || r.Flow == "":
		return errors.New("a call needs execution, attempt (1 to 2147483647), node and flow")
	case len(r.Node) > 255 || len(r.Iteration) > 255 || len(r.Flow) > 255 || strings.ContainsRune(r.Node+r.Iteration+r.Flow, 0):
		return errors.New("node, iteration or flow is longer than 255 bytes, or holds a zero byte")
	case r.Version < 0 || r.Version > math.MaxInt32 || len(r.Labels) > 64:
		return errors.New("version is between 0 and 2147483647, and there are at most 64 labels")
	}
	return nil
}

// checkClaims refuses what the database could not store: one such claim would fail the batch of all the workers that wait with it.
func checkClaims(r *protocol.ClaimsRequest) error {
	if len(r.Claims) > claims.MaxClaims {
		return fmt.Errorf("more than %d claims: ask in parts", claims.MaxClaims)
	}
	for i, c := range r.Claims {
		if c.Session.IsZero() || c.Execution.IsZero() || c.Run == 0 || c.Attempt < 1 || c.Attempt > math.MaxInt32 {
			return fmt.Errorf("claims[%d] needs session, execution, run (not 0) and attempt (1 to 2147483647)", i)
		}
	}
	return nil
}

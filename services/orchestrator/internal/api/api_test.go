package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

func setup(t *testing.T) (http.Handler, *error) {
	var fail error
	h := New(Options{
		Token: "secret",
		Open: func(_ context.Context, r protocol.OpenSessionRequest) (protocol.SessionResponse, error) {
			return protocol.SessionResponse{Alive: true, LeaseMS: int64(len(r.Ended))}, fail
		},
		Renew: func(context.Context, protocol.RenewRequest) (protocol.SessionResponse, error) {
			return protocol.SessionResponse{Alive: true}, fail
		},
		End: func(context.Context, protocol.EndSessionsRequest) error { return fail },
		Claims: func(_ context.Context, c []protocol.Claim) ([]protocol.Answer, error) {
			out := make([]protocol.Answer, len(c))
			for i := range c {
				out[i] = protocol.Granted
			}
			return out, fail
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	return h, &fail
}

func call(h http.Handler, path, auth string, body any) *httptest.ResponseRecorder {
	raw, ok := body.([]byte)
	if !ok {
		raw, _ = json.Marshal(body)
	}
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(raw))
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestCalls(t *testing.T) {
	t.Parallel()
	a, b := protocol.ID{1}, protocol.ID{2}
	claim := protocol.Claim{Session: a, Execution: b, Attempt: 1, Run: 5}
	const token = "Bearer secret"
	for name, tt := range map[string]struct {
		path, auth string
		body       any
		status     int
		says       string
	}{
		"open":                   {"/internal/v1/sessions/open", token, protocol.OpenSessionRequest{Session: a, Worker: "w", Ended: []protocol.ID{b}}, 200, `{"alive":true,"leaseMs":1}`},
		"renew":                  {"/internal/v1/sessions/renew", token, protocol.RenewRequest{Session: a, Runs: []int64{1, 2}}, 200, `"alive":true`},
		"end":                    {"/internal/v1/sessions/end", token, protocol.EndSessionsRequest{Sessions: []protocol.ID{a}}, 200, `{}`},
		"claims":                 {"/internal/v1/claims", token, protocol.ClaimsRequest{Claims: []protocol.Claim{claim, claim}}, 200, `{"answers":["granted","granted"]}`},
		"no claims":              {"/internal/v1/claims", token, protocol.ClaimsRequest{}, 200, `{"answers":[]}`},
		"no token":               {"/internal/v1/claims", "", protocol.ClaimsRequest{}, 401, "INTERNAL_TOKEN"},
		"wrong token":            {"/internal/v1/claims", "Bearer secret2", protocol.ClaimsRequest{}, 401, "INTERNAL_TOKEN"},
		"basic":                  {"/internal/v1/claims", "Basic secret", protocol.ClaimsRequest{}, 401, "INTERNAL_TOKEN"},
		"not JSON":               {"/internal/v1/claims", token, []byte("{"), 400, "not what this call takes"},
		"bad id":                 {"/internal/v1/sessions/renew", token, []byte(`{"session":"x"}`), 400, "is not an id"},
		"no session":             {"/internal/v1/sessions/renew", token, []byte(`{}`), 422, "session is missing"},
		"ends itself":            {"/internal/v1/sessions/open", token, protocol.OpenSessionRequest{Session: a, Worker: "w", Ended: []protocol.ID{a}}, 422, "can't prove"},
		"zero byte":              {"/internal/v1/sessions/open", token, protocol.OpenSessionRequest{Session: a, Worker: "w\x00"}, 422, "zero byte"},
		"odd pool":               {"/internal/v1/sessions/open", token, protocol.OpenSessionRequest{Session: a, Worker: "w", Pool: "a.#"}, 422, "pool"},
		"huge slots":             {"/internal/v1/sessions/open", token, protocol.OpenSessionRequest{Session: a, Worker: "w", Slots: 1 << 40}, 422, "slots"},
		"claim without run":      {"/internal/v1/claims", token, protocol.ClaimsRequest{Claims: []protocol.Claim{claim, {Session: a, Execution: b, Attempt: 1}}}, 422, "claims[1]"},
		"attempt out of range":   {"/internal/v1/claims", token, protocol.ClaimsRequest{Claims: []protocol.Claim{{Session: a, Execution: b, Attempt: 1 << 40, Run: 1}}}, 422, "claims[0]"},
		"end without sessions":   {"/internal/v1/sessions/end", token, protocol.EndSessionsRequest{}, 422, "sessions is empty"},
		"too long":               {"/internal/v1/claims", token, []byte(strings.Repeat(" ", maxBody+1)), 413, "ask in parts"},
		"unknown call":           {"/internal/v1/elsewhere", token, []byte("{}"), 404, ""},
		"unknown call, no token": {"/internal/v1/elsewhere", "", []byte("{}"), 401, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := setup(t)
			w := call(h, tt.path, tt.auth, tt.body)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("%d %s, want %d and %q", w.Code, w.Body, tt.status, tt.says)
			}
		})
	}
}

// What isn't known to be committed gets no answer, whatever the call.
func TestAFailureIsNoAnswer(t *testing.T) {
	t.Parallel()
	a := protocol.ID{1}
	for path, body := range map[string]any{
		"sessions/open":  protocol.OpenSessionRequest{Session: a, Worker: "w"},
		"sessions/renew": protocol.RenewRequest{Session: a},
		"sessions/end":   protocol.EndSessionsRequest{Sessions: []protocol.ID{a}},
		"claims":         protocol.ClaimsRequest{Claims: []protocol.Claim{{Session: a, Execution: a, Attempt: 1, Run: 1}}},
	} {
		h, fail := setup(t)
		for _, *fail = range []error{protocol.ErrUnknown, errors.New("connection refused"), context.DeadlineExceeded} {
			w := call(h, "/internal/v1/"+path, "Bearer secret", body)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "granted") {
				t.Errorf("%s with %v: %d %s", path, *fail, w.Code, w.Body)
			}
		}
	}
}

func TestAnEmptyTokenOpensNothing(t *testing.T) {
	t.Parallel()
	h := New(Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if w := call(h, "/internal/v1/claims", "Bearer ", protocol.ClaimsRequest{}); w.Code != http.StatusUnauthorized {
		t.Errorf("%d", w.Code)
	}
}

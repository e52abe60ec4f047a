package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"testing"
	"time"
)

func readyz(t *testing.T, h *Health) (int, Status) {
	t.Helper()
	w := httptest.NewRecorder()
	h.Readyz(w, httptest.NewRequest("GET", "/readyz", nil))
	var st Status
	if err := json.Unmarshal(w.Body.Bytes(), &st); err != nil {
		t.Fatal(err)
	}
	return w.Code, st
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	h := NewHealth()
	now := time.Unix(1000, 0)
	h.now = func() time.Time { return now }
	var database, broker error
	asked := 0
	h.Register("database", true, func(context.Context) error { asked++; return database })
	h.Register("broker", false, func(context.Context) error { return broker })
	for _, tc := range []struct {
		database, broker error
		code             int
		status           string
	}{
		{nil, nil, 200, "ready"},
		{nil, errors.New("away"), 200, "degraded"},
		{errors.New("away"), nil, 503, "unavailable"},
		{nil, nil, 200, "ready"},
	} {
		database, broker = tc.database, tc.broker
		now = now.Add(2 * time.Second)
		if code, st := readyz(t, h); code != tc.code || st.Status != tc.status {
			t.Errorf("database %v, broker %v: %d %+v", tc.database, tc.broker, code, st)
		}
	}
	before := asked
	readyz(t, h)
	if asked != before {
		t.Error("an answer younger than a second was not used")
	}
}

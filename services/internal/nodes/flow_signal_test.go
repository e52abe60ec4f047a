package nodes

import (
	"errors"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func TestSignalAndApproval(t *testing.T) {
	t.Parallel()
	now := time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)
	type config = map[string]any
	tests := []struct {
		name   string
		typ    node.Type
		config config
		want   flow.Wait // Open: a part of it
		fails  string    // a part of the message
	}{
		{"a name", flowSignal(), config{"name": "paid"}, flow.Wait{Kind: "signal", Key: "paid", Reason: "waits for the signal paid"}, ""},
		{"a key that is a number", flowSignal(), config{"name": "paid", "key": 17, "timeout": "72h"}, flow.Wait{Kind: "signal", Key: "paid/17", Due: now.Add(72 * time.Hour), Reason: "waits for the signal paid with the key 17"}, ""},
		{"a key with a slash", flowSignal(), config{"name": "paid", "key": "a/b", "timeout": 1500}, flow.Wait{Kind: "signal", Key: "paid/a/b", Due: now.Add(1500 * time.Millisecond), Reason: "waits for the signal paid with the key a/b"}, ""},
		{"an empty key would be everybody's", flowSignal(), config{"name": "paid", "key": ""}, flow.Wait{}, "key is"},
		{"a key that is nothing", flowSignal(), config{"name": "paid", "key": nil}, flow.Wait{}, "key is"},
		{"a key that is an object", flowSignal(), config{"name": "paid", "key": config{}}, flow.Wait{}, "key is"},
		{"a long key", flowSignal(), config{"name": "paid", "key": strings.Repeat("x", 201)}, flow.Wait{}, "key is"},
		{"a key with a line break", flowSignal(), config{"name": "paid", "key": "a\nb"}, flow.Wait{}, "key is"},
		{"a name with a slash", flowSignal(), config{"name": "a/b"}, flow.Wait{}, "name is"},
		{"no time left", flowSignal(), config{"name": "paid", "timeout": "0s"}, flow.Wait{}, "timeout is"},
		{"too long", flowSignal(), config{"name": "paid", "timeout": "9000h"}, flow.Wait{}, "timeout is"},
		{"overflow", flowSignal(), config{"name": "paid", "timeout": int(1) << 62}, flow.Wait{}, "timeout is"},
		{"any operator", flowApproval(), config{}, flow.Wait{Kind: "approval", Key: "n/2", Reason: "waits for an approval", Open: []byte(`"approvers":[]`)}, ""},
		{"people, in small letters", flowApproval(), config{"title": "Go?", "approvers": []any{" CFO@Shop.example "}, "expires": "1h"}, flow.Wait{Kind: "approval", Key: "n/2", Due: now.Add(time.Hour), Reason: "waits for an approval: Go?", Open: []byte(`"approvers":["cfo@shop.example"]`)}, ""},
		{"nobody is not everybody", flowApproval(), config{"approvers": []any{}}, flow.Wait{}, "approvers is"},
		{"an approver that is nothing", flowApproval(), config{"approvers": []any{nil}}, flow.Wait{}, "approvers/0 is"},
		{"a large form", flowApproval(), config{"fields": config{"a": strings.Repeat("x", 70<<10)}}, flow.Wait{}, "64 KiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tt.typ.Executor.Execute(t.Context(), node.Call{Node: "n", Iteration: "2", Config: tt.config, Now: now})
			if tt.fails != "" {
				var ne *node.Error
				if !errors.As(err, &ne) || ne.Code != "config" || ne.Retryable || !strings.Contains(ne.Message, tt.fails) {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil || r.Wait == nil {
				t.Fatalf("%+v, %v", r, err)
			}
			got := *r.Wait
			if got.Kind != tt.want.Kind || got.Key != tt.want.Key || !got.Due.Equal(tt.want.Due) || got.Reason != tt.want.Reason || !strings.Contains(string(got.Open), string(tt.want.Open)) {
				t.Fatalf("%+v %s, want %+v", got, got.Open, tt.want)
			}
		})
	}
}

package nodes

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

const (
	maxSignalKey  = 200 // bytes
	maxOutsideFor = maxDelay
)

var signalName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,100}$`)

func flowSignal() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "flow.signal", Version: 1, Kind: flow.KindWait, Category: "flow", Ports: []string{flow.PortMain, protocol.PortExpired},
			Title: "Signal", Description: "Waits for a signal by its name, and by a key where many executions wait for the same name. A signal that came before is taken at once. Waiting costs a row, no memory and no slot.",
			Config: `{"type": "object", "required": ["name"], "additionalProperties": false,
				"properties": {
					"name": {"type": "string", "title": "Name", "minLength": 1, "maxLength": 100, "description": "of the signal: letters, digits, _ . and -"},
					"key": {"type": ["string", "integer"], "title": "Key", "description": "like the number of an order; who sends POST /signals/{name} with this key reaches this execution without knowing its id; at most 200 bytes"},
					"timeout": {"type": ["string", "integer"], "title": "Timeout", "description": "like 90s, 5m or 72h; then it leaves by the port expired; without it waits as long as the execution may take"}}}`,
			Output: `{"description": "the data that the signal was sent with; null when it expired"}`,
			Examples: []node.Example{
				{Title: "Until the payment of this order is known, for three days", Config: map[string]any{"name": "payment", "key": "{{ input.orderId }}", "timeout": "72h"}, Input: map[string]any{"orderId": "A-17"}},
				{Title: "Until somebody signals this very execution", Config: map[string]any{"name": "go-on"}},
			},
		},
		Executor: signal{},
	}
}

type signal struct{}

func (signal) Execute(_ context.Context, c node.Call) (node.Result, error) {
	name, wrongName := text(c.Config, "name")
	if wrongName != nil {
		return node.Result{}, wrongName
	}
	if !signalName.MatchString(name) {
		return node.Result{}, wrong("name", name, "1 to 100 letters, digits, _ . and -")
	}
	w := &flow.Wait{Kind: flow.WaitSignal, Key: name, Reason: "waits for the signal " + name}
	if v, ok := c.Config["key"]; ok {
		key, known := literal(v)
		if !known || key == "" || len(key) > maxSignalKey || !utf8.ValidString(key) || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' }) {
			return node.Result{}, wrong("key", v, fmt.Sprintf("a text or a number of 1 to %d bytes without control characters; leave the key away to wait for the name alone", maxSignalKey))
		}
		w.Key, w.Reason = protocol.SignalKey(name, key), w.Reason+" with the key "+key
	}
	due, problem := expiry(c, "timeout")
	if problem != nil {
		return node.Result{}, problem
	}
	w.Due = due
	return node.Result{Wait: w}, nil
}

// expiry is when a wait ends by itself; zero: never.
func expiry(c node.Call, field string) (time.Time, *node.Error) {
	v, ok := c.Config[field]
	if !ok || v == nil {
		return time.Time{}, nil
	}
	const want = "a duration like 90s, 5m or 72h, or a number of milliseconds, above 0 and at most 8760h"
	var d time.Duration
	switch v := v.(type) {
	case string:
		d, _ = time.ParseDuration(v)
	case int:
		d = time.Duration(min(int64(v), int64(maxOutsideFor/time.Millisecond)+1)) * time.Millisecond
	}
	if d <= 0 || d > maxOutsideFor {
		return time.Time{}, wrong(field, v, want)
	}
	return c.Now.Add(d).UTC(), nil
}

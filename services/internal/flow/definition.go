package flow

import (
	"encoding/json"
	"fmt"
	"time"
)

// Definition is a flow document as its author wrote it. Parse makes one from JSON; Compile checks it and makes a Program.
type Definition struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Nodes       []Node            `json:"nodes"`
	Edges       []Edge            `json:"edges"`
	Settings    Settings          `json:"settings,omitzero"`
	Labels      map[string]string `json:"labels,omitempty"`
	InputSchema json.RawMessage   `json:"inputSchema,omitempty"`
}

// Node is one typed step.
type Node struct {
	ID          string         `json:"id"`
	Type        string         `json:"type"`
	TypeVersion int            `json:"typeVersion,omitempty"` // 0: the newest when the flow is saved
	Name        string         `json:"name,omitempty"`
	Config      map[string]any `json:"config,omitempty"` // values as DecodeValue gives them; strings may hold {{ expressions }}
	Timeout     Duration       `json:"timeout,omitempty"`
	Retry       *Retry         `json:"retry,omitempty"`
	OnError     string         `json:"onError,omitempty"` // OnErrorFail, OnErrorContinue, OnErrorRoute
	Pool        string         `json:"pool,omitempty"`
	Parent      string         `json:"parent,omitempty"`
	Compensate  string         `json:"compensate,omitempty"`
	Position    *Position      `json:"position,omitempty"`
	Notes       string         `json:"notes,omitempty"`
}

// What a node does when it has failed and its tries are used up.
const (
	OnErrorFail     = "fail"
	OnErrorContinue = "continue"
	OnErrorRoute    = "route"
)

// Position is where the editor draws a node; the engine ignores it.
type Position struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// Edge leads from a port of one node to another node. An empty port is PortMain.
type Edge struct {
	From string `json:"from"`
	Port string `json:"port,omitempty"`
	To   string `json:"to"`
}

// The ports that mean something to the engine itself.
const (
	PortMain    = "main"
	PortError   = "error"
	PortFinally = "finally" // of logic.try
)

// Retry says how often a failing node is tried again, and how long is waited between two tries.
type Retry struct {
	MaxAttempts  int      `json:"maxAttempts"`       // all tries, the first one included; 1…100
	Backoff      string   `json:"backoff,omitempty"` // "fixed" or "exponential" (default)
	InitialDelay Duration `json:"initialDelay,omitempty"`
	MaxDelay     Duration `json:"maxDelay,omitempty"`
	Jitter       bool     `json:"jitter,omitempty"`
}

// Settings of a whole flow. Flow control (the last four) is obeyed by whoever accepts and hands out executions; the engine doesn't know it.
type Settings struct {
	Timeout     Duration      `json:"timeout,omitempty"`  // from accept, waits included
	Priority    string        `json:"priority,omitempty"` // "high", "normal" (default), "low"
	Pool        string        `json:"pool,omitempty"`
	Retention   Duration      `json:"retention,omitempty"`
	Concurrency []Concurrency `json:"concurrency,omitempty"`
	Rate        []Rate        `json:"rate,omitempty"`
	Fairness    *Fairness     `json:"fairness,omitempty"`
	Debounce    *Debounce     `json:"debounce,omitempty"`
}

// Concurrency limits how many executions with the same key run at once.
type Concurrency struct {
	Key     string `json:"key,omitempty"` // expression over the input
	Limit   int    `json:"limit,omitempty"`
	OnLimit string `json:"onLimit,omitempty"` // "queue" (default), "reject", "cancel_oldest", "cancel_newest"
}

// Rate limits how many executions with the same key start in a time.
type Rate struct {
	Key   string   `json:"key,omitempty"`
	Limit int      `json:"limit,omitempty"`
	Per   Duration `json:"per"`
}

// Fairness serves keys in turn within a priority.
type Fairness struct {
	Key    string `json:"key"`
	Weight any    `json:"weight,omitempty"` // number, or expression over the input
}

// Debounce makes one execution of many starts with the same key that follow each other quickly.
type Debounce struct {
	Key      string   `json:"key,omitempty"`
	Delay    Duration `json:"delay"`
	MaxDelay Duration `json:"maxDelay,omitempty"`
	Collect  bool     `json:"collect,omitempty"` // the inputs as a list, instead of the last one
}

// Duration is a time.Duration that JSON shows as "1m30s"; a bare number means milliseconds.
type Duration time.Duration

// MarshalJSON writes the node with the exact numbers of its config.
func (n Node) MarshalJSON() ([]byte, error) {
	type plain Node
	out := struct {
		plain
		Config json.RawMessage `json:"config,omitempty"`
	}{plain: plain(n)}
	if len(n.Config) > 0 {
		raw, err := EncodeValue(n.Config)
		if err != nil {
			return nil, fmt.Errorf("config of node %s: %w", n.ID, err)
		}
		out.Config = raw
	}
	return json.Marshal(out)
}

// UnmarshalJSON is Parse for those who want one error: it names the first problem.
func (d *Definition) UnmarshalJSON(data []byte) error {
	def, problems := Parse(data)
	if len(problems) > 0 {
		return fmt.Errorf("%s: %s (%d problems in all)", problems[0].Pointer, problems[0].Message, len(problems))
	}
	*d = *def
	return nil
}

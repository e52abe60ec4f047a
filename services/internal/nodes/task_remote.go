package nodes

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

// remoteQueue is what the name of a queue for remote workers looks like: it stands in a path.
var remoteQueue = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

func taskRemote() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "task.remote", Version: 1, Kind: flow.KindWait, Category: "flow",
			Title: "Remote task", Description: "Gives the input to a worker of your own, in any language, which polls the queue over HTTP and completes the task with the output. Waiting costs a row, no memory and no slot. The node's timeout bounds how long it may take, with the time before a worker takes it.",
			Config: `{"type": "object", "additionalProperties": false, "required": ["queue"],
				"properties": {
					"queue": {"type": "string", "title": "Queue", "minLength": 1, "description": "which workers poll: letters, digits, dot, dash and underscore, at most 64"},
					"input": {"title": "Input", "description": "what the worker gets; null if absent"},
					"heartbeat": {"type": ["string", "integer"], "title": "Heartbeat", "default": "60s", "description": "a worker that gives no sign of life for so long has lost the task, and another one gets it; 1s to 24h, a bare number means milliseconds"}}}`,
			Output: `{"title": "What the worker completes it with"}`,
			Check: func(config map[string]any) []flow.Problem {
				q, ok := config["queue"].(string)
				if ok && !remoteQueue.MatchString(q) && !strings.Contains(q, "{{") {
					return []flow.Problem{{Pointer: "/queue", Code: "queue", Message: fmt.Sprintf("%q is not the name of a queue: letters, digits, dot, dash and underscore, at most %d", q, protocol.MaxRemoteQueue)}}
				}
				return nil
			},
			Examples: []node.Example{
				{Title: "Print a label", Config: map[string]any{"queue": "labels", "input": map[string]any{"order": "{{ input.order }}"}}, Input: map[string]any{"order": 7}},
				{Title: "A long one, that is missed after ten minutes", Config: map[string]any{"queue": "video", "input": "{{ input }}", "heartbeat": "10m"}, Input: "film.mp4"},
				{Title: "A name that is none", Config: map[string]any{"queue": "{{ input }}"}, Input: "a/b", Error: "config"},
			},
		},
		Executor: remote{},
	}
}

type remote struct{}

func (remote) Execute(_ context.Context, c node.Call) (node.Result, error) {
	queue, problem := text(c.Config, "queue")
	if problem != nil {
		return node.Result{}, problem
	}
	if !remoteQueue.MatchString(queue) {
		return node.Result{}, wrong("queue", queue, "the name of a queue: letters, digits, dot, dash and underscore")
	}
	beat, problem := heartbeat(c.Config["heartbeat"])
	if problem != nil {
		return node.Result{}, problem
	}
	var execution protocol.ID
	if err := execution.UnmarshalText([]byte(c.Execution)); err != nil {
		return node.Result{}, err
	}
	open, err := json.Marshal(protocol.RemoteOpen{Queue: queue, Try: c.Try, Heartbeat: beat.Milliseconds()})
	if err != nil {
		return node.Result{}, err
	}
	w := &flow.Wait{Kind: flow.WaitRemote, Key: protocol.RemoteTaskID(execution, c.Node, c.Iteration, c.Try, c.Retries).String(), Reason: fmt.Sprintf("waits for a remote worker of the queue %q", queue), Open: open}
	if c.Timeout > 0 {
		w.Due = c.Now.Add(c.Timeout).UTC()
	}
	return node.Result{Wait: w, Output: c.Config["input"]}, nil
}

func heartbeat(v any) (time.Duration, *node.Error) {
	const want = "a duration from 1s to 24h, like 90s or 5m, or a number of milliseconds"
	var d time.Duration
	switch v := v.(type) {
	case nil:
		return protocol.DefaultHeartbeat, nil
	case string:
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			return 0, wrong("heartbeat", v, want)
		}
	case int:
		if int64(v) <= protocol.MaxHeartbeat.Milliseconds() {
			d = time.Duration(v) * time.Millisecond
		}
	}
	if d < protocol.MinHeartbeat || d > protocol.MaxHeartbeat {
		return 0, wrong("heartbeat", v, want)
	}
	return d, nil
}

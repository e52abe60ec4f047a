package nodes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/nodes/script"
)

// Limits of data.code.
const (
	defaultMemoryMB = 64
	maxMemoryMB     = 256
	maxCodeInput    = 8 << 20 // bytes of what a script sees, as JSON
	answerWithin    = 20 * time.Millisecond
)

func dataCode(host *script.Host) node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "data.code", Version: 1, Kind: flow.KindPure, Category: "data", Timeout: 10 * time.Second, Literal: []string{"/code"},
			Title:       "Code",
			Description: "Runs JavaScript (ES2023, strict mode) and outputs what it returns. It computes only: no network, files or modules, and nothing to wait for. Date and Math.random give the same when computed again. Whole numbers beyond ±(2^53−1) come in, and go out, as BigInt; decimals are rounded to JavaScript's numbers.",
			Config: `{"type": "object", "required": ["code"], "additionalProperties": false,
				"properties": {
					"code": {"type": "string", "minLength": 1, "maxLength": 65536, "title": "Code", "format": "javascript",
						"description": "the body of a function, as it is: {{ }} is no expression here. In scope: input, steps.<id>.{output, port, status, error} of the steps before this one (write the id out: steps.fetch, steps['fetch'] or const {fetch} = steps), in containers item and index, and console.log for the step's log. What it returns is the output; nothing is null"},
					"memoryMB": {"type": "integer", "minimum": 8, "maximum": 256, "default": 64, "title": "Memory (MiB)", "description": "that the script may use"}}}`,
			Output: `{"description": "what the script returns, as JSON"}`,
			Check:  checkCode,
			Examples: []node.Example{
				{Title: "Sum of a list", Config: map[string]any{"code": "return { total: input.items.reduce((sum, i) => sum + i.price * i.quantity, 0) };"},
					Input: map[string]any{"items": []any{map[string]any{"price": 3, "quantity": 2}, map[string]any{"price": 5, "quantity": 1}}}, Output: map[string]any{"total": 11}},
				{Title: "Exact with large numbers", Config: map[string]any{"code": "return input.id + 1n;"}, Input: map[string]any{"id": 9223372036854775806}, Output: 9223372036854775807},
				{Title: "A failure of its own", Config: map[string]any{"code": "throw new Error('no stock');"}, Error: "code"},
			},
		},
		Executor: code{host},
	}
}

func checkCode(config map[string]any) []flow.Problem {
	source, _ := config["code"].(string)
	if why := script.Check(source); why != "" {
		return []flow.Problem{{Pointer: "/code", Code: "javascript", Message: why}}
	}
	return nil
}

type code struct{ host *script.Host }

func (x code) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	if x.host == nil {
		return node.Result{}, &node.Error{Code: "code-unavailable", Message: "this process can't run data.code: it was built without script processes (nodes.Options.Scripts)"}
	}
	q, problem := codeRequest(c)
	if problem != nil {
		return node.Result{}, problem
	}
	q.Millis = math.MaxInt32
	if deadline, ok := ctx.Deadline(); ok { // it ends itself a little before its process is ended
		q.Millis = max(1, (time.Until(deadline) - answerWithin).Milliseconds())
	}
	a, err := x.host.Run(ctx, q)
	switch {
	case ctx.Err() != nil:
		return node.Result{}, ctx.Err()
	case errors.Is(err, script.ErrDied):
		return node.Result{}, &node.Error{Code: "memory", Retryable: true, Err: err, Message: "the script's process was ended while it ran: it, or the machine, had no memory left; let the script take less at once"}
	case err != nil:
		return node.Result{}, &node.Error{Code: "code-process", Retryable: true, Err: err, Message: "the script could not be run: " + err.Error()}
	}
	if c.Log != nil {
		for _, line := range a.Logs {
			c.Log.Info(line, slog.String("execution", c.Execution), slog.String("node", c.Node))
		}
	}
	if a.Failure != "" {
		return node.Result{}, scriptFailed(a, q)
	}
	out, err := script.Decode(a.Output)
	if err != nil {
		return node.Result{}, &node.Error{Code: "code", Message: "what the script returned can't be read as JSON: " + err.Error()}
	}
	return node.Result{Output: out}, nil
}

func scriptFailed(a script.Response, q script.Request) *node.Error {
	switch a.Failure {
	case script.Timeout:
		return &node.Error{Code: "timeout", Message: fmt.Sprintf("the script was ended after %s: look for an endless loop, or raise the node's timeout", time.Duration(q.Millis)*time.Millisecond)}
	case script.Memory:
		return &node.Error{Code: "memory", Message: fmt.Sprintf("the script took more than %d MiB: raise memoryMB (%d at most), or work on less at once", q.MemoryMB, maxMemoryMB)}
	case script.Stack:
		return &node.Error{Code: "stack", Message: "the script calls itself too deeply: look for an endless recursion"}
	case script.TooLarge:
		return &node.Error{Code: "value-too-large", Message: a.Message + ": return what later steps need"}
	}
	return &node.Error{Code: "code", Message: a.Message}
}

func codeRequest(c node.Call) (script.Request, *node.Error) {
	source, problem := text(c.Config, "code")
	if problem != nil {
		return script.Request{}, problem
	}
	memory := defaultMemoryMB
	switch m := c.Config["memoryMB"].(type) {
	case nil:
	case int:
		memory = m
	default:
		memory = 0
	}
	if memory < 8 || memory > maxMemoryMB {
		return script.Request{}, wrong("memoryMB", c.Config["memoryMB"], fmt.Sprintf("a whole number from 8 to %d", maxMemoryMB))
	}
	scope := map[string]any{"input": nil, "steps": map[string]any{}}
	if s := c.Scope; s != nil {
		scope["input"], scope["steps"] = s.Input, stepsOf(s, source)
		if s.InRound {
			scope["item"], scope["index"] = s.Item, s.Index
		}
	}
	data, marked, err := script.Encode(scope)
	if err == nil && len(data) > maxCodeInput {
		err = fmt.Errorf("it has %d bytes as JSON, %d are allowed", len(data), maxCodeInput)
	}
	if err != nil {
		return script.Request{}, &node.Error{Code: "value-too-large", Message: "what the script would see is too much: " + err.Error()}
	}
	limit := c.Limits.MaxValueBytes
	if limit <= 0 {
		limit = flow.MaxValueBytes
	}
	return script.Request{Code: source, Data: data, Marked: marked, Now: c.Now.UnixMilli(), Seed: c.Seed, MemoryMB: memory, MaxOutput: limit}, nil
}

var (
	stepNamed = regexp.MustCompile("\\bsteps\\s*(?:\\?\\.|\\.|(?:\\?\\.)?\\[\\s*[\"'`])\\s*([A-Za-z_][A-Za-z0-9_]*)")
	stepsCut  = regexp.MustCompile(`\{([^{}]*)\}\s*=\s*steps\b`)
	stepID    = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
)

// stepsOf gives the steps that the code names, as far as they are before this one.
func stepsOf(s *flow.Scope, source string) map[string]any {
	out := map[string]any{}
	if s.Steps == nil || !strings.Contains(source, "steps") {
		return out
	}
	add := func(id string) {
		v, ok := s.Steps(id)
		if !ok {
			return
		}
		step := map[string]any{"output": v.Output, "port": v.Port, "status": v.Status, "error": nil}
		if e := v.Error; e != nil {
			step["error"] = map[string]any{"code": e.Code, "message": e.Message, "node": e.Node, "retryable": e.Retryable, "data": e.Data}
		}
		out[id] = step
	}
	for _, m := range stepNamed.FindAllStringSubmatch(source, -1) {
		add(m[1])
	}
	for _, m := range stepsCut.FindAllStringSubmatch(source, -1) {
		for _, id := range stepID.FindAllString(m[1], -1) {
			add(id)
		}
	}
	return out
}

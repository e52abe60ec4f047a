package nodes

import (
	"context"
	"fmt"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

// Caller starts other flows at the orchestrators. An error means that nothing is known: the same call again is the same call.
type Caller func(context.Context, protocol.CallRequest) (protocol.CallAnswer, error)

func flowCall(call Caller) node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "flow.call", Version: 1, Kind: flow.KindEffect, Category: "flow", Timeout: time.Minute,
			Title: "Call a flow", Description: "Starts another flow, and waits for its end unless told not to. Waiting costs a row, no memory and no slot. When the caller ends, what it waits for is cancelled.",
			Config: `{"type": "object", "required": ["flow"], "additionalProperties": false,
				"properties": {
					"flow": {"type": "string", "title": "Flow", "minLength": 1, "maxLength": 200, "description": "id or name of the flow; it begins at its trigger.manual, or its only trigger"},
					"input": {"title": "Input", "description": "of the called execution; checked against the flow's inputSchema"},
					"wait": {"type": "boolean", "title": "Wait", "default": true, "description": "false: it goes on at once with {id}, and the called execution lives on by itself"},
					"version": {"type": "integer", "title": "Version", "minimum": 1, "description": "the published one if absent"},
					"labels": {"type": "object", "title": "Labels", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 200}, "description": "of the called execution, added to its flow's own"}}}`,
			Output: `{"description": "the output of the called execution; without waiting {id}. A called execution that fails, is cancelled or times out fails the step with the code child-failed"}`,
			Examples: []node.Example{
				{Title: "Bill an order, and go on with what came of it", Config: map[string]any{"flow": "bill-order", "input": map[string]any{"orderId": "{{ input.orderId }}"}}, Input: map[string]any{"orderId": 7}},
				{Title: "Start and go on", Config: map[string]any{"flow": "send-newsletter", "wait": false}},
			},
		},
		Executor: callFlow{call},
	}
}

type callFlow struct{ call Caller }

func (x callFlow) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	req, problem := callOf(c)
	if problem != nil {
		return node.Result{}, problem
	}
	if x.call == nil {
		return node.Result{}, &node.Error{Code: "config", Message: "this worker can't call flows: it knows no orchestrator"}
	}
	answer, err := x.ask(ctx, req)
	switch {
	case err != nil:
		return node.Result{}, &node.Error{Code: "no-answer", Retryable: true, Err: err, Message: fmt.Sprintf("no orchestrator has answered whether the flow %q was started: %v; the same call again starts it once", req.Flow, err)}
	case answer.Stale: // whoever ended the attempt, or asked for its end, ends this step too: it is no failure of the flow
		<-ctx.Done()
		return node.Result{}, &node.Error{Code: "stale", Message: "this execution was ended, or handed out again, while it called another: nothing was started"}
	case answer.Refused != nil:
		return node.Result{}, &node.Error{Code: answer.Refused.Code, Message: answer.Refused.Message, Data: answer.Refused.Data}
	case !req.Wait:
		return node.Result{Output: map[string]any{"id": answer.Child.String()}}, nil
	}
	return node.Result{Wait: &flow.Wait{Kind: flow.WaitChildren, Key: answer.Child.String(), Reason: fmt.Sprintf("waits for the execution %s of the flow %s", answer.Child, req.Flow)}}, nil
}

// ask asks again and again, another orchestrator each time, for as long as the step may take.
func (x callFlow) ask(ctx context.Context, req protocol.CallRequest) (protocol.CallAnswer, error) {
	pause := 100 * time.Millisecond
	for {
		answer, err := x.call(ctx, req)
		if err == nil {
			return answer, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			pause = min(2*pause, 3*time.Second)
		case <-ctx.Done():
			t.Stop()
			return answer, err
		}
	}
}

func callOf(c node.Call) (protocol.CallRequest, *node.Error) {
	req := protocol.CallRequest{Attempt: c.Attempt, Node: c.Node, Iteration: c.Iteration, Wait: true}
	var err error
	if req.Execution, err = protocol.ParseID(c.Execution); err != nil {
		return req, &node.Error{Code: "config", Message: err.Error()}
	}
	var problem *node.Error
	if req.Flow, problem = text(c.Config, "flow"); problem != nil {
		return req, problem
	}
	if req.Flow == "" {
		return req, wrong("flow", req.Flow, "the id or the name of a flow")
	}
	if v, ok := c.Config["wait"]; ok {
		if req.Wait, ok = v.(bool); !ok {
			return req, wrong("wait", v, "true or false")
		}
	}
	if v, ok := c.Config["version"]; ok && v != nil {
		if req.Version, ok = v.(int); !ok || req.Version < 1 {
			return req, wrong("version", v, "the number of a version")
		}
	}
	if v, ok := c.Config["labels"]; ok {
		labels, ok := v.(map[string]any)
		if !ok || len(labels) > 64 {
			return req, wrong("labels", v, "an object of at most 64 texts")
		}
		req.Labels = make(map[string]string, len(labels))
		for k, v := range labels {
			s, ok := literal(v)
			if !ok || len(s) > 200 || len(k) > 200 || k == "" {
				return req, wrong("labels/"+k, v, "a text of at most 200 bytes")
			}
			req.Labels[k] = s
		}
	}
	if v, ok := c.Config["input"]; ok {
		if req.Input, err = flow.EncodeValue(v); err != nil {
			return req, &node.Error{Code: "config", Message: "input: " + err.Error()}
		}
	}
	return req, nil
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Approval is one that waits for a decision.
type Approval struct {
	ExecutionID string            `json:"executionId" format:"uuid"`
	FlowID      string            `json:"flowId" format:"uuid"`
	Node        string            `json:"node"`
	Iteration   string            `json:"iteration,omitempty" doc:"Inside a loop: send it with the decision"`
	Title       string            `json:"title,omitempty"`
	Approvers   []string          `json:"approvers" nullable:"false" doc:"E-mail addresses and roles; empty: every operator"`
	Fields      json.RawMessage   `json:"fields,omitempty" doc:"What is asked beside the decision: JSON Schemas by name"`
	Labels      map[string]string `json:"labels,omitempty" doc:"Of the execution"`
	Since       time.Time         `json:"since"`
	Expires     time.Time         `json:"expires,omitzero"`
}

// ApprovalDecision is the body of a decision.
type ApprovalDecision struct {
	Decision  string          `json:"decision" enum:"approve,reject"`
	Data      json.RawMessage `json:"data,omitempty" doc:"The fields, checked against what the node asks for; at most 256 KiB"`
	Iteration string          `json:"iteration,omitempty" maxLength:"200" doc:"Of an approval inside a loop: which round"`
}

// Decided is a decision that counts.
type Decided struct {
	Status   string    `json:"status" enum:"taken,kept" doc:"taken: the execution goes on. kept: it goes on as soon as it has nothing else to do"`
	Decision string    `json:"decision" enum:"approve,reject"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`
}

type decideInput struct {
	IDRef
	Node           string `path:"node" maxLength:"200"`
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"The same decision again is answered as the first time"`
	Body           ApprovalDecision
}

type decidedOutput struct{ Body Decided }

type approvalsInput struct{ Page }

func (a *API) approvalRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "listApprovals", Method: http.MethodGet, Path: "/approvals", Tags: []string{tagWaits}, Summary: "List what you may approve or reject, the newest first"}, a.listApprovals)
	route(a, auth.Viewer, huma.Operation{OperationID: "decideApproval", Method: http.MethodPost, Path: "/executions/{id}/approvals/{node}", Tags: []string{tagWaits}, Summary: "Approve or reject", MaxBodyBytes: maxLetter + maxLetterHeader,
		Description: "Whoever the node names may; without names every operator. Only the first decision counts: 409 for those after it, and when it has expired."}, a.decide)
}

// names are those by which an approval may name the caller: the address, and the own role with those below.
func names(who *auth.Principal) []string {
	out := []string{strings.ToLower(who.Email)}
	for r := auth.Viewer; r <= who.Role; r++ {
		out = append(out, r.String())
	}
	return out
}

func may(who *auth.Principal, approvers []string) bool {
	if len(approvers) == 0 {
		return who.Role >= auth.Operator
	}
	for _, n := range names(who) {
		for _, ap := range approvers {
			if n == ap {
				return true
			}
		}
	}
	return false
}

func (a *API) listApprovals(ctx context.Context, in *approvalsInput) (*listOutput[Approval], error) {
	who := principal(ctx)
	rows, next, err := a.o.DB.ListApprovals(ctx, names(who), who.Role >= auth.Operator, in.page())
	if err != nil {
		return nil, err
	}
	return listOf(rows, next, func(x *store.Approval) Approval {
		v := Approval{ExecutionID: x.Execution.String(), FlowID: x.Flow.String(), Node: x.Node, Iteration: x.Iteration, Title: x.Title, Approvers: x.Approvers, Fields: x.Fields, Labels: x.Labels, Since: x.Since, Expires: x.Due}
		if v.Approvers == nil {
			v.Approvers = []string{}
		}
		return v
	}), nil
}

func (a *API) decide(ctx context.Context, in *decideInput) (*decidedOutput, error) {
	id, err := pathID(in.ID, "execution")
	if err != nil {
		return nil, err
	}
	who, now := principal(ctx), a.o.Now().UTC().Truncate(time.Millisecond)
	data, err := letterData(in.Body.Data, "/data")
	if err != nil {
		return nil, err
	}
	l := protocol.Letter{Project: store.DefaultProject, Execution: id, Kind: flow.WaitApproval, Key: protocol.ApprovalKey(in.Node, in.Body.Iteration), Once: true, Sender: who.Actor(), Port: "approved"}
	if in.Body.Decision == "reject" {
		l.Port = "rejected"
	}
	l.ID = letterID(ctx, l.Kind+" "+id.String()+" "+l.Key, in.IdempotencyKey)
	if err := a.mayDecide(ctx, in, id, data); err != nil {
		if in.IdempotencyKey != "" && errors.Is(err, errDecided) { // it may be the same decision again: only its sender has that key
			return a.decidedBefore(ctx, &l, err)
		}
		return nil, err
	}
	output := map[string]any{"decision": in.Body.Decision, "by": who.Email, "at": now}
	if output["data"] = null; data != nil {
		output["data"] = data
	}
	if l.Output, err = json.Marshal(output); err != nil {
		return nil, err
	}
	d, err := a.deliver(ctx, l)
	if err != nil {
		return nil, err
	}
	a.note(ctx, in.Body.Decision, "execution", in.ID, map[string]any{"node": in.Node, "iteration": in.Body.Iteration, "letter": l.ID.String()})
	return &decidedOutput{Decided{Status: string(d.Status), Decision: in.Body.Decision, By: who.Email, At: now}}, nil
}

// decidedBefore answers a decision that was sent before; else is what to answer when it wasn't.
func (a *API) decidedBefore(ctx context.Context, l *protocol.Letter, otherwise error) (*decidedOutput, error) {
	known, err := a.o.DB.LetterByID(ctx, l.ID)
	if errors.Is(err, store.ErrNotFound) || err == nil && (known.Execution != l.Execution || known.Key != l.Key || known.Port != l.Port) {
		return nil, otherwise
	}
	if err != nil {
		return nil, err
	}
	var said Decided
	if err := json.Unmarshal(known.Output, &said); err != nil {
		return nil, err
	}
	said.Status = string(protocol.LetterKept)
	if !known.Taken.IsZero() {
		said.Status = string(protocol.LetterTaken)
	}
	return &decidedOutput{said}, nil
}

var errDecided = errors.New("it isn't open")

// mayDecide looks whether there is such an approval, whether the caller is one who may decide it, and whether the fields are what it asks for.
func (a *API) mayDecide(ctx context.Context, in *decideInput, id protocol.ID, data json.RawMessage) error {
	open, err := a.o.DB.OpenApproval(ctx, id, in.Node, in.Body.Iteration)
	if errors.Is(err, store.ErrNotFound) {
		if _, err := a.execution(ctx, in.ID); err != nil {
			return err
		}
		was, err := a.o.DB.WasApproval(ctx, id, in.Node, in.Body.Iteration)
		switch {
		case err != nil:
			return err
		case was:
			return problem.New(http.StatusConflict, "this approval is decided already, has expired, or its execution has ended").Wrap(errDecided)
		}
		return problem.New(http.StatusNotFound, "the execution doesn't wait for an approval of a step %q here; GET /executions/%s/waits shows what it waits for, and the iteration of a step in a loop", in.Node, in.ID)
	}
	if err != nil {
		return err
	}
	if !may(principal(ctx), open.Approvers) {
		whom := "operators"
		if len(open.Approvers) > 0 {
			whom = strings.Join(open.Approvers, ", ")
		}
		return problem.New(http.StatusForbidden, "this approval is for others to decide: %s", whom)
	}
	form, err := definitions.FormSchema(open.Fields)
	if err != nil {
		return problem.New(http.StatusConflict, "the flow asks for fields that can't be checked: %s; mend the node %s, cancel the execution and start it again", err.Error(), in.Node)
	}
	if form == nil || in.Body.Decision == "reject" && data == nil { // who rejects owes no form
		return nil
	}
	var v any = map[string]any{}
	if data != nil {
		if v, err = flow.DecodeValue(data); err != nil {
			return err
		}
	}
	if wrong := form.Check(v, "/data"); len(wrong) > 0 {
		return problem.Invalid("the fields are not what the approval asks for; nothing was decided", fieldsOf(wrong)...)
	}
	return nil
}

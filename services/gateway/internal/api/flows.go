package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
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

const tagFlows = "Flows"

// Flow is a flow; with its newest document where one flow is asked for.
type Flow struct {
	ID               string            `json:"id" format:"uuid"`
	Name             string            `json:"name"`
	Description      string            `json:"description,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	PublishedVersion int               `json:"publishedVersion" doc:"The version that triggers and starts use; 0: none"`
	LatestVersion    int               `json:"latestVersion"`
	Revision         int               `json:"revision" doc:"Raised by every change; the ETag"`
	PausedReason     string            `json:"pausedReason,omitempty"`
	CreatedAt        time.Time         `json:"createdAt"`
	UpdatedAt        time.Time         `json:"updatedAt"`
	Document         json.RawMessage   `json:"document,omitempty" doc:"The newest version's document"`
}

// FlowVersion is one version of a flow; it never changes.
type FlowVersion struct {
	Version   int             `json:"version"`
	Published bool            `json:"published"`
	CreatedBy string          `json:"createdBy,omitempty"`
	CreatedAt time.Time       `json:"createdAt"`
	Document  json.RawMessage `json:"document,omitempty"`
}

// Verdict is what validation says.
type Verdict struct {
	Valid    bool           `json:"valid"`
	Problems []flow.Problem `json:"problems" nullable:"false" doc:"All of them, with JSON pointers into the document"`
}

// FlowRef is a flow in a path. Exported, like all that are embedded: huma leaves out what it could not set.
type FlowRef struct {
	ID string `path:"id" doc:"Id of the flow, or its name (percent-encoded)"`
}

type flowOutput struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     Flow
}

// NewFlowInput is a document to save.
type NewFlowInput struct {
	Draft   bool `query:"draft" doc:"Only save the version, don't publish it"`
	RawBody []byte
}

type saveFlowInput struct {
	FlowRef
	NewFlowInput
	IfMatch string `header:"If-Match" doc:"ETag that the flow must still have (412 otherwise); absent: whatever it has"`
}

// VersionRef is a version of a flow in a path.
type VersionRef struct {
	FlowRef
	Version int `path:"version" minimum:"1" maximum:"1000000000" doc:"Number of the version"`
}

type listFlowsInput struct {
	Page
	Query string   `query:"q" maxLength:"200" doc:"Part of the name or of the description"`
	Label []string `query:"label,explode" maxItems:"16" doc:"key=value; several: all of them"`
}

// document describes a body that is a flow document; what is wrong in it is found by the flow's own rules, not by a schema.
func document() *huma.RequestBody {
	return &huma.RequestBody{Required: true, Description: "A flow document", Content: map[string]*huma.MediaType{"application/json": {
		Schema: &huma.Schema{Type: "object", Description: "Flow document: name, nodes, edges, settings, labels, inputSchema", AdditionalProperties: true}}}}
}

func (a *API) flowRoutes() {
	const bytes = flow.MaxDocumentBytes + 1
	route(a, auth.Viewer, huma.Operation{OperationID: "listFlows", Method: http.MethodGet, Path: "/flows", Tags: []string{tagFlows}, Summary: "List flows, the newest first"}, a.listFlows)
	route(a, auth.Editor, huma.Operation{OperationID: "createFlow", Method: http.MethodPost, Path: "/flows", Tags: []string{tagFlows}, Summary: "Create a flow and publish its first version", DefaultStatus: http.StatusCreated,
		MaxBodyBytes: bytes, RequestBody: document(), SkipValidateBody: true}, a.createFlow)
	route(a, auth.Viewer, huma.Operation{OperationID: "validateFlow", Method: http.MethodPost, Path: "/flows/validate", Tags: []string{tagFlows}, Summary: "Say everything that is wrong with a flow document",
		MaxBodyBytes: bytes, RequestBody: document(), SkipValidateBody: true},
		func(ctx context.Context, in *struct{ RawBody []byte }) (*struct{ Body Verdict }, error) {
			_, problems, err := a.o.Definitions.Check(ctx, in.RawBody)
			if err != nil {
				return nil, err
			}
			if len(problems) == 1 && problems[0].Code == "json" {
				return nil, badJSON(problems[0].Message)
			}
			if problems == nil {
				problems = []flow.Problem{}
			}
			return &struct{ Body Verdict }{Verdict{Valid: len(problems) == 0, Problems: problems}}, nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getFlow", Method: http.MethodGet, Path: "/flows/{id}", Tags: []string{tagFlows}, Summary: "Show a flow with its newest document"}, a.getFlow)
	route(a, auth.Editor, huma.Operation{OperationID: "saveFlow", Method: http.MethodPut, Path: "/flows/{id}", Tags: []string{tagFlows}, Summary: "Save a new version of a flow and publish it",
		MaxBodyBytes: bytes, RequestBody: document(), SkipValidateBody: true}, a.saveFlow)
	route(a, auth.Editor, huma.Operation{OperationID: "deleteFlow", Method: http.MethodDelete, Path: "/flows/{id}", Tags: []string{tagFlows}, Summary: "Delete a flow", DefaultStatus: http.StatusNoContent,
		Description: "What runs goes on, and its executions can still be read."}, a.deleteFlow)
	route(a, auth.Viewer, huma.Operation{OperationID: "listVersions", Method: http.MethodGet, Path: "/flows/{id}/versions", Tags: []string{tagFlows}, Summary: "List a flow's versions, the newest first"},
		func(ctx context.Context, in *struct {
			FlowRef
			Page
		}) (*listOutput[FlowVersion], error) {
			f, err := a.flow(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			rows, next, err := a.o.DB.ListVersions(ctx, f.ID, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, func(v *store.FlowVersion) FlowVersion {
				out := viewVersion(f, v)
				out.Document = nil
				return out
			}), nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getVersion", Method: http.MethodGet, Path: "/flows/{id}/versions/{version}", Tags: []string{tagFlows}, Summary: "Show one version of a flow"},
		func(ctx context.Context, in *VersionRef) (*struct{ Body FlowVersion }, error) {
			f, err := a.flow(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			v, err := a.o.DB.VersionOf(ctx, f.ID, in.Version)
			if err != nil {
				return nil, missing(err, "version", strconv.Itoa(in.Version))
			}
			return &struct{ Body FlowVersion }{viewVersion(f, &v)}, nil
		})
	route(a, auth.Editor, huma.Operation{OperationID: "publishVersion", Method: http.MethodPost, Path: "/flows/{id}/versions/{version}/publish", Tags: []string{tagFlows}, Summary: "Make a version the one that triggers and starts use"}, a.publishVersion)
}

func viewFlow(f *store.Flow) Flow {
	return Flow{ID: f.ID.String(), Name: f.Name, Description: f.Description, Labels: f.Labels, PublishedVersion: f.Published, LatestVersion: f.Latest, Revision: f.Revision,
		PausedReason: f.PausedReason, CreatedAt: f.CreatedAt, UpdatedAt: f.UpdatedAt}
}

func viewVersion(f store.Flow, v *store.FlowVersion) FlowVersion {
	return FlowVersion{Version: v.Version, Published: v.Version == f.Published, CreatedBy: v.CreatedBy, CreatedAt: v.CreatedAt, Document: v.Document}
}

func answerFlow(f *store.Flow, doc json.RawMessage) *flowOutput {
	out := &flowOutput{ETag: etag(f.Revision), Body: viewFlow(f)}
	out.Body.Document = doc
	return out
}

func etag(revision int) string { return `"` + strconv.Itoa(revision) + `"` }

// revisionOf reads an If-Match; -1: any.
func revisionOf(ifMatch string) (int, error) {
	s := strings.TrimSpace(ifMatch)
	if s == "" || s == "*" {
		return -1, nil
	}
	n, err := strconv.Atoi(strings.Trim(strings.TrimPrefix(s, "W/"), `"`))
	if err != nil || n < 0 {
		return 0, problem.New(http.StatusPreconditionFailed, "%s is not the ETag of this flow: read it again", ifMatch)
	}
	return n, nil
}

// flow finds the flow of a path on the primary.
func (a *API) flow(ctx context.Context, idOrName string) (store.Flow, error) {
	id, err := protocol.ParseID(idOrName)
	var f store.Flow
	if err == nil {
		f, err = a.o.DB.FlowByID(ctx, id)
	} else {
		f, err = a.o.DB.FlowByName(ctx, protocol.ID{}, idOrName)
	}
	return f, noFlow(err, idOrName)
}

func noFlow(err error, idOrName string) error {
	if errors.Is(err, store.ErrNotFound) {
		return problem.New(http.StatusNotFound, "there is no flow with the id or name %q", idOrName)
	}
	return err
}

func badJSON(message string) *problem.Problem {
	p := problem.New(http.StatusBadRequest, "the body is not JSON")
	p.Errors = []problem.Field{problem.Body("", "json", "%s", message)}
	return p
}

// fieldsOf shows a document's problems as the fields of a problem.
func fieldsOf(problems []flow.Problem) []problem.Field {
	out := make([]problem.Field, len(problems))
	for i, p := range problems {
		out[i] = problem.Field{Pointer: p.Pointer, Location: "body", Code: p.Code, Message: p.Message, Column: p.Column}
	}
	return out
}

// check judges a document that is to be saved.
func (a *API) check(ctx context.Context, raw []byte) (*definitions.Checked, error) {
	checked, problems, err := a.o.Definitions.Check(ctx, raw)
	switch {
	case err != nil:
		return nil, err
	case len(problems) == 1 && problems[0].Code == "json":
		return nil, badJSON(problems[0].Message)
	case len(problems) > 0:
		return nil, problem.Invalid(fmt.Sprintf("the flow has %d problems, nothing was saved", len(problems)), fieldsOf(problems)...)
	}
	return &checked, nil
}

// taken says which field is wrong when another flow has its name, or its webhook.
func taken(err error, def *flow.Definition) error {
	name := def.Name
	var hook *store.HookTakenError
	if errors.As(err, &hook) {
		p := problem.New(http.StatusConflict, "%s; nothing was changed", hook.Error())
		i := slices.IndexFunc(def.Nodes, func(n flow.Node) bool { return n.ID == hook.Node })
		p.Errors = []problem.Field{problem.Body("/nodes/"+strconv.Itoa(i)+"/config/path", "exists", "%s: choose another path or method, or save a version of that flow without it", hook.Error())}
		return p
	}
	if errors.Is(err, store.ErrConflict) {
		p := problem.New(http.StatusConflict, "there is another flow with the name %q", name)
		p.Errors = []problem.Field{problem.Body("/name", "exists", "names are unique: choose another one, or save a new version of that flow with PUT /flows/{id}")}
		return p
	}
	return err
}

func (a *API) listFlows(ctx context.Context, in *listFlowsInput) (*listOutput[Flow], error) {
	labels, err := labelsOf(in.Label)
	if err != nil {
		return nil, err
	}
	rows, next, err := a.o.DB.ListFlows(ctx, store.FlowFilter{Query: in.Query, Label: labels}, in.page())
	if err != nil {
		return nil, err
	}
	return listOf(rows, next, viewFlow), nil
}

// labelsOf reads key=value parameters.
func labelsOf(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(list))
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, problem.Invalid("a label is wrong", problem.Parameter("query", "label", "%q is not key=value", s))
		}
		out[k] = v
	}
	return out, nil
}

func (a *API) createFlow(ctx context.Context, in *NewFlowInput) (*flowOutput, error) {
	checked, err := a.check(ctx, in.RawBody)
	if err != nil {
		return nil, err
	}
	def := checked.Definition
	f, err := a.o.DB.CreateFlow(ctx, store.Flow{ID: store.NewID(), Name: def.Name, Description: def.Description, Labels: def.Labels}, checked.Document, principal(ctx).Actor(), !in.Draft, checked.Triggers()...)
	if err != nil {
		return nil, taken(err, def)
	}
	a.o.Definitions.Settle(ctx)
	a.note(ctx, "create", "flow", f.ID.String(), map[string]any{"name": f.Name, "version": f.Latest, "published": f.Published})
	out := answerFlow(&f, checked.Document)
	out.Location = Base + "/flows/" + f.ID.String()
	return out, nil
}

func (a *API) getFlow(ctx context.Context, in *FlowRef) (*flowOutput, error) {
	f, err := a.flow(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v, err := a.o.DB.VersionOf(ctx, f.ID, f.Latest)
	if err != nil {
		return nil, err
	}
	return answerFlow(&f, v.Document), nil
}

func (a *API) saveFlow(ctx context.Context, in *saveFlowInput) (*flowOutput, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	checked, err := a.check(ctx, in.RawBody)
	if err != nil {
		return nil, err
	}
	def := checked.Definition
	f, err := a.flow(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	f, err = a.o.DB.SaveFlow(ctx, f.ID, revision, def.Name, def.Description, def.Labels, checked.Document, principal(ctx).Actor(), !in.Draft, checked.Triggers()...)
	if err != nil {
		return nil, taken(noFlow(err, in.ID), def)
	}
	a.o.Definitions.Settle(ctx)
	a.note(ctx, "save", "flow", f.ID.String(), map[string]any{"name": f.Name, "version": f.Latest, "published": f.Published})
	return answerFlow(&f, checked.Document), nil
}

func (a *API) deleteFlow(ctx context.Context, in *struct {
	FlowRef
	IfMatch string `header:"If-Match" doc:"ETag that the flow must still have"`
}) (*nothing, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	f, err := a.flow(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := a.o.DB.DeleteFlow(ctx, f.ID, revision); err != nil {
		return nil, noFlow(err, in.ID)
	}
	a.o.Definitions.Settle(ctx)
	a.note(ctx, "delete", "flow", f.ID.String(), map[string]any{"name": f.Name})
	return nil, nil
}

func (a *API) publishVersion(ctx context.Context, in *struct {
	VersionRef
	IfMatch string `header:"If-Match" doc:"ETag that the flow must still have (412 otherwise); absent: whatever it has"`
}) (*flowOutput, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	f, err := a.flow(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v, err := a.o.Definitions.Version(ctx, f, in.Version)
	var unusable *definitions.UnusableError
	switch {
	case errors.As(err, &unusable):
		return nil, problem.New(http.StatusConflict, "%s", unusable.Error())
	case err != nil:
		return nil, missing(err, "version", strconv.Itoa(in.Version))
	}
	if f, err = a.o.DB.PublishVersion(ctx, f.ID, revision, in.Version, v.Triggers()...); err != nil {
		return nil, taken(noFlow(err, in.ID), v.Definition())
	}
	a.o.Definitions.Settle(ctx)
	a.note(ctx, "publish", "flow", f.ID.String(), map[string]any{"name": f.Name, "version": in.Version})
	return answerFlow(&f, nil), nil
}

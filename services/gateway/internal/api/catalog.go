package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/node"
)

const tagCatalog = "Catalogue"

// catalogRoutes show what flows are made of. The editor's forms, its palette and the documentation are drawn from it.
func (a *API) catalogRoutes() {
	types := a.o.Catalogue.List()
	views := make([]node.View, len(types))
	for i, t := range types {
		views[i] = t.View()
	}
	flowSchema, schemaErr := a.o.Catalogue.FlowSchema()
	route(a, auth.Viewer, huma.Operation{OperationID: "listNodeTypes", Method: http.MethodGet, Path: "/catalog/nodes", Tags: []string{tagCatalog}, Summary: "List the node types, with the JSON Schemas of their configuration and output",
		Description: "All of them, on one page."},
		func(context.Context, *nothing) (*listOutput[node.View], error) {
			return &listOutput[node.View]{Body: List[node.View]{Items: views}}, nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getNodeType", Method: http.MethodGet, Path: "/catalog/nodes/{type}", Tags: []string{tagCatalog}, Summary: "Show a node type"},
		func(_ context.Context, in *struct {
			Type    string `path:"type" doc:"Like http.request"`
			Version int    `query:"version" minimum:"1" maximum:"1000000" doc:"The newest if absent"`
		}) (*struct{ Body node.View }, error) {
			t, ok := a.o.Catalogue.Find(in.Type, in.Version)
			if !ok {
				return nil, problem.New(http.StatusNotFound, "there is no node type %q, or not in this version: GET /catalog/nodes lists what there is", in.Type)
			}
			return &struct{ Body node.View }{t.View()}, nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getFlowSchema", Method: http.MethodGet, Path: "/catalog/flow-schema", Tags: []string{tagCatalog}, Summary: "Give the JSON Schema (2020-12) of a flow document",
		Description: "What only the whole graph shows (cycles, ports, references) is for POST /flows/validate."},
		func(context.Context, *nothing) (*struct{ Body json.RawMessage }, error) {
			return &struct{ Body json.RawMessage }{flowSchema}, schemaErr
		})
}

package main

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
)

type catalogCommand struct {
	Type       string `arg:"" optional:"" help:"A node type, like http.request: all about it. Without it, the list."`
	FlowSchema bool   `help:"Print the JSON Schema of flow documents, for editors."`
}

// nodeView is what flowctl reads of a node type.
type nodeView struct {
	Type        string          `json:"type"`
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Kind        string          `json:"kind"`
	Category    string          `json:"category"`
	Ports       []string        `json:"ports"`
	Credentials []string        `json:"credentials"`
	Timeout     string          `json:"timeout"`
	Config      json.RawMessage `json:"config"`
	Output      json.RawMessage `json:"output"`
}

func (k *catalogCommand) Run(a *app) error {
	switch {
	case k.FlowSchema && k.Type != "":
		return errors.New("name a type, or take --flow-schema, not both")
	case k.FlowSchema:
		return get(a, "/catalog/flow-schema", func(v json.RawMessage) error { return a.printJSON(v) })
	case k.Type != "":
		return get(a, "/catalog/nodes/"+url.PathEscape(k.Type), a.nodeType)
	}
	return get(a, "/catalog/nodes", func(v struct{ Items []nodeView }) error {
		rows := make([][]string, len(v.Items))
		for i, n := range v.Items {
			rows[i] = []string{n.Type, n.Kind, strings.Join(n.Ports, ", "), strings.Join(n.Credentials, ", "), n.Title}
		}
		return a.table([]string{"TYPE", "KIND", "PORTS", "CREDENTIAL", "TITLE"}, rows)
	})
}

func (a *app) nodeType(n nodeView) error {
	if err := a.fields([][2]string{
		{"Type", n.Type}, {"Title", n.Title}, {"About", n.Description}, {"Kind", n.Kind}, {"Ports", strings.Join(n.Ports, ", ")}, {"Credential", strings.Join(n.Credentials, ", ")}, {"Timeout", n.Timeout},
	}); err != nil {
		return err
	}
	return a.printJSON(map[string]json.RawMessage{"config": n.Config, "output": n.Output})
}

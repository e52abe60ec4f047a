package definitions

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

// checkCredentials says which nodes name a credential that isn't there, or is of a type that they don't take: one look-up for the whole document. A credential
// that is deleted later fails the step that needs it.
func (d *Definitions) checkCredentials(ctx context.Context, def *flow.Definition) ([]flow.Problem, error) {
	var names []string
	for i := range def.Nodes {
		if name, _ := d.credentialOf(&def.Nodes[i]); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	known, err := d.db.CredentialTypes(ctx, protocol.ID{}, names)
	if err != nil {
		return nil, fmt.Errorf("look up the flow's credentials: %w", err)
	}
	var out []flow.Problem
	for i := range def.Nodes {
		n := &def.Nodes[i]
		name, takes := d.credentialOf(n)
		if name == "" {
			continue
		}
		at := "/nodes/" + strconv.Itoa(i) + "/config/" + node.CredentialSetting
		switch typ, there := known[name]; {
		case !there:
			out = append(out, flow.Problem{Pointer: at, Code: "unknown-credential", Message: fmt.Sprintf("there is no credential with the name or id %q: make it first (flowctl credential create), or mend the name", name)})
		case !slices.Contains(takes, typ):
			out = append(out, flow.Problem{Pointer: at, Code: "credential-type", Message: fmt.Sprintf("the credential %q is of type %s, and %s takes %s", name, typ, n.Type, strings.Join(takes, ", "))})
		}
	}
	return out, nil
}

// credentialOf gives the credential that a node names, and the types that it takes. What else may be wrong with the setting is the catalogue's to say.
func (d *Definitions) credentialOf(n *flow.Node) (name string, takes []string) {
	t, ok := d.types.Find(n.Type, n.TypeVersion)
	if !ok || len(t.Credentials) == 0 {
		return "", nil
	}
	name, _ = n.Config[node.CredentialSetting].(string)
	if strings.Contains(name, "{{") {
		return "", nil
	}
	return name, t.Credentials
}

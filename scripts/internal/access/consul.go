package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/spec"
)

// BootstrapConsul makes the operator's management token the first one of the cluster. It returns false when it was so already.
func BootstrapConsul(ctx context.Context, consul *api.Client, secret string) (bool, error) {
	err := consul.Get(ctx, "/v1/acl/token/self", nil)
	if err == nil {
		return false, nil
	}
	if !api.HasStatus(err, http.StatusForbidden) && !api.HasStatus(err, http.StatusNotFound) {
		return false, fmt.Errorf("ask Consul who we are: %w", err)
	}
	err = consul.Call(ctx, http.MethodPut, "/v1/acl/bootstrap", map[string]string{"BootstrapSecret": secret}, nil)
	if api.HasStatus(err, http.StatusForbidden) {
		return false, errors.New("Consul has a management token, and it isn't the one in this operator's directory: take the directory with which the cluster was made " +
			"(a copy of keys/tokens.json), or reset it: https://developer.hashicorp.com/consul/docs/secure/acl/troubleshoot")
	}
	if err != nil {
		return false, fmt.Errorf("bootstrap Consul's ACL: %w", err)
	}
	return true, nil
}

// ApplyConsul makes Consul know what the plan says, and takes away what an earlier plan had said. Secrets are the operator's, by name. It returns how many things
// it changed.
func ApplyConsul(ctx context.Context, consul *api.Client, p Plan, secrets map[string]string) (int, error) {
	a := &applier{ctx: ctx, consul: consul}
	steps := []func() error{
		func() error { return a.policies(p.Policies) },
		func() error { return a.roles(p.Roles) },
		func() error { return a.method(p.Keys) },
		func() error { return a.rules(p.Rules) },
		func() error { return a.tokens(p.Tokens, secrets) },
		a.removeOld,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return a.changed, fmt.Errorf("consul's ACL: %w", err)
		}
	}
	return a.changed, nil
}

type applier struct {
	ctx     context.Context
	consul  *api.Client
	changed int
	old     []string // paths of what is no longer wanted, removed last: nothing wanted depends on it then
}

type link struct{ ID, Name string }

func (a *applier) put(path string, in any) error {
	a.changed++
	return a.consul.Call(a.ctx, http.MethodPut, path, in, nil)
}

func (a *applier) policies(wanted []Policy) error {
	var there []struct{ ID, Name, Description string }
	if err := a.consul.Get(a.ctx, "/v1/acl/policies", &there); err != nil {
		return fmt.Errorf("list policies: %w", err)
	}
	ids := map[string]string{}
	for _, t := range there {
		ids[t.Name] = t.ID
		if strings.HasPrefix(t.Name, ours) && !slices.ContainsFunc(wanted, func(w Policy) bool { return w.Name == t.Name }) {
			a.old = append(a.old, "/v1/acl/policy/"+t.ID)
		}
	}
	for _, w := range wanted {
		path := "/v1/acl/policy"
		if id := ids[w.Name]; id != "" {
			path += "/" + id
			var now Policy
			if err := a.consul.Get(a.ctx, path, &now); err != nil {
				return fmt.Errorf("read policy %s: %w", w.Name, err)
			}
			if now == w {
				continue
			}
		}
		if err := a.put(path, w); err != nil {
			return fmt.Errorf("write policy %s: %w", w.Name, err)
		}
	}
	return nil
}

func (a *applier) roles(wanted []Role) error {
	var there []struct {
		ID, Name, Description string
		Policies              []link
	}
	if err := a.consul.Get(a.ctx, "/v1/acl/roles", &there); err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	for _, t := range there {
		if strings.HasPrefix(t.Name, ours) && !slices.ContainsFunc(wanted, func(w Role) bool { return w.Name == t.Name }) {
			a.old = append([]string{"/v1/acl/role/" + t.ID}, a.old...)
		}
	}
	for _, w := range wanted {
		path := "/v1/acl/role"
		if i := slices.IndexFunc(there, func(t struct {
			ID, Name, Description string
			Policies              []link
		}) bool {
			return t.Name == w.Name
		}); i >= 0 {
			if there[i].Description == w.Description && slices.Equal(names(there[i].Policies), w.Policies) {
				continue
			}
			path += "/" + there[i].ID
		}
		body := map[string]any{"Name": w.Name, "Description": w.Description, "Policies": links(w.Policies)}
		if err := a.put(path, body); err != nil {
			return fmt.Errorf("write role %s: %w", w.Name, err)
		}
	}
	return nil
}

func names(links []link) []string {
	all := make([]string, len(links))
	for i, l := range links {
		all[i] = l.Name
	}
	slices.Sort(all)
	return all
}

func links(names []string) []map[string]string {
	all := make([]map[string]string, len(names))
	for i, n := range names {
		all[i] = map[string]string{"Name": n}
	}
	return all
}

// method makes the auth method by which a task's identity, signed by Nomad, becomes a token of Consul. Its public keys come from the server beside each Consul
// server (flow-jwks). No MaxTokenTTL: Nomad renews no token, it logs out when the task ends.
func (a *applier) method(publicKeys string) error {
	claims := map[string]any{}
	for _, claim := range []string{"nomad_namespace", "nomad_job_id", "nomad_task", "nomad_service"} {
		claims[claim] = claim
	}
	wanted := map[string]any{
		"JWKSURL":          publicKeys,
		"JWTSupportedAlgs": []any{"RS256"},
		"BoundAudiences":   []any{Audience},
		"ClaimMappings":    claims,
	}
	var now struct {
		Type, Description, TokenLocality string
		Config                           map[string]any
	}
	const description = "flow: workload identities of Nomad"
	err := a.consul.Get(a.ctx, "/v1/acl/auth-method/"+Method, &now)
	path := "/v1/acl/auth-method/" + Method
	switch {
	case api.HasStatus(err, http.StatusNotFound):
		path = "/v1/acl/auth-method"
	case err != nil:
		return fmt.Errorf("read the auth method %s: %w", Method, err)
	case now.Type == "jwt" && now.Description == description && now.TokenLocality == "local" && covers(now.Config, wanted):
		return nil
	}
	body := map[string]any{"Name": Method, "Type": "jwt", "Description": description, "TokenLocality": "local", "Config": wanted}
	if err := a.put(path, body); err != nil {
		return fmt.Errorf("write the auth method %s: %w", Method, err)
	}
	return nil
}

// covers says whether everything wanted is there; Consul adds defaults of its own.
func covers(now, wanted map[string]any) bool {
	for key, value := range wanted {
		if !reflect.DeepEqual(now[key], value) {
			return false
		}
	}
	return true
}

func (a *applier) rules(wanted []Rule) error {
	var there []struct {
		ID string
		Rule
	}
	if err := a.consul.Get(a.ctx, "/v1/acl/binding-rules?authmethod="+Method, &there); err != nil {
		return fmt.Errorf("list binding rules: %w", err)
	}
	missing := slices.Clone(wanted)
	for _, t := range there {
		if i := slices.Index(missing, t.Rule); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
			continue
		}
		a.old = append([]string{"/v1/acl/binding-rule/" + t.ID}, a.old...) // first: a role that goes has no rule then
	}
	for _, w := range missing {
		body := map[string]string{"Description": w.Description, "AuthMethod": Method, "Selector": w.Selector, "BindType": w.BindType, "BindName": w.BindName}
		if err := a.put("/v1/acl/binding-rule", body); err != nil {
			return fmt.Errorf("write the binding rule %q: %w", w.Description, err)
		}
	}
	return nil
}

// consulToken is what Consul says of a token.
type consulToken struct {
	AccessorID, Description, AuthMethod string
	Policies                            []link
	NodeIdentities                      []struct{ NodeName, Datacenter string }
}

func (t consulToken) gives(w Token) bool {
	node := ""
	if len(t.NodeIdentities) > 0 {
		node = t.NodeIdentities[0].NodeName
	}
	return t.Description == w.Description && slices.Equal(names(t.Policies), w.Policies) && node == w.Node
}

func (a *applier) tokens(wanted []Token, secrets map[string]string) error {
	var there []consulToken
	if err := a.consul.Get(a.ctx, "/v1/acl/tokens", &there); err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	keep := map[string]bool{}
	for _, w := range wanted {
		secret := secrets[w.Name]
		if secret == "" {
			return fmt.Errorf("no secret for token %s", w.Name)
		}
		body := map[string]any{"Description": w.Description, "Policies": links(w.Policies)}
		if w.Node != "" {
			body["NodeIdentities"] = []map[string]string{{"NodeName": w.Node, "Datacenter": spec.Datacenter}}
		}
		path := "/v1/acl/token"
		now, err := a.readBySecret(secret)
		switch {
		case err != nil:
			return fmt.Errorf("read token %s: %w", w.Name, err)
		case now == nil:
			body["SecretID"] = secret
		default:
			keep[now.AccessorID] = true
			if now.gives(w) {
				continue
			}
			path += "/" + now.AccessorID
		}
		var made consulToken
		a.changed++
		if err := a.consul.Call(a.ctx, http.MethodPut, path, body, &made); err != nil {
			return fmt.Errorf("write token %s: %w", w.Name, err)
		}
		keep[made.AccessorID] = true
	}
	for _, t := range there {
		if strings.HasPrefix(t.Description, "flow: ") && t.AuthMethod == "" && !keep[t.AccessorID] {
			a.old = append([]string{"/v1/acl/token/" + t.AccessorID}, a.old...)
		}
	}
	return nil
}

// readBySecret asks with the token itself: the list doesn't show secrets. It returns nil when Consul doesn't know it.
func (a *applier) readBySecret(secret string) (*consulToken, error) {
	self := api.New(a.consul.Base, api.ConsulToken, secret)
	self.HTTP = a.consul.HTTP
	var t consulToken
	err := self.Get(a.ctx, "/v1/acl/token/self", &t)
	if api.HasStatus(err, http.StatusForbidden) || api.HasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &t, nil
}

func (a *applier) removeOld() error {
	for _, path := range a.old {
		a.changed++
		if err := a.consul.Call(a.ctx, http.MethodDelete, path, nil, nil); err != nil && !api.HasStatus(err, http.StatusNotFound) {
			return fmt.Errorf("remove what is no longer wanted: %w", err)
		}
	}
	return nil
}

// AddManagement makes a token with every right, with a secret that the operator has drawn; once.
func AddManagement(ctx context.Context, consul *api.Client, secret string) error {
	a := &applier{ctx: ctx, consul: consul}
	there, err := a.readBySecret(secret)
	if err != nil || there != nil {
		return err
	}
	body := map[string]any{"SecretID": secret, "Description": "the operator's own", "Policies": links([]string{"global-management"})}
	if err := a.put("/v1/acl/token", body); err != nil {
		return fmt.Errorf("make Consul's new management token: %w", err)
	}
	return nil
}

// Revoke takes a token away whose secret is known.
func Revoke(ctx context.Context, consul *api.Client, secret string) error {
	a := &applier{ctx: ctx, consul: consul}
	if secret == "" {
		return nil
	}
	t, err := a.readBySecret(secret)
	if err != nil || t == nil {
		return err
	}
	if err := consul.Call(ctx, http.MethodDelete, "/v1/acl/token/"+t.AccessorID, nil, nil); err != nil && !api.HasStatus(err, http.StatusNotFound) {
		return fmt.Errorf("revoke a token: %w", err)
	}
	return nil
}

// Package ground is what the platform stands on, as its HTTP APIs show it: Consul, Nomad, and the Nomad Variables that hold secrets.
package ground

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"flowplatform/scripts/internal/api"
)

// Ground is the pair of agents as their HTTP APIs show them.
type Ground struct {
	Consul *api.Client
	Nomad  *api.Client
}

// ConsulReady says whether Consul has a leader and answers from its catalogue.
func (g Ground) ConsulReady(ctx context.Context) (bool, string, error) {
	var leader string
	if err := g.Consul.Get(ctx, "/v1/status/leader", &leader); err != nil || leader == "" {
		return false, "waiting for Consul to elect its leader", nil
	}
	if err := g.Consul.Get(ctx, "/v1/catalog/service/consul", nil); err != nil {
		return false, "waiting for Consul's catalogue", nil
	}
	return true, "", nil
}

// ServerReady says whether Nomad has a leader that has read its state and has its keys.
func (g Ground) ServerReady(ctx context.Context) (bool, string, error) {
	var leader string
	if err := g.Nomad.Get(ctx, "/v1/status/leader", &leader); err != nil || leader == "" {
		return false, "waiting for Nomad to elect its leader", nil
	}
	var keys []struct{ State string }
	if err := g.Nomad.Get(ctx, "/v1/operator/keyring/keys", &keys); err != nil {
		return false, "waiting for Nomad's keys", nil
	}
	active := slices.ContainsFunc(keys, func(k struct{ State string }) bool { return k.State == "active" })
	return active, "waiting for Nomad to make its keys", nil
}

// Variable is a Nomad Variable: values by key, and the index that a write must name.
type Variable struct {
	Path        string
	Items       map[string]string
	ModifyIndex uint64 `json:",omitempty"`
}

// ReadVariable returns nil when there is no such variable.
func (g Ground) ReadVariable(ctx context.Context, path string) (*Variable, error) {
	var v Variable
	err := g.Nomad.Get(ctx, "/v1/var/"+path, &v)
	if api.HasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the Nomad Variable %s: %w", path, err)
	}
	return &v, nil
}

// WriteVariable writes a variable if nobody else has in the meantime.
func (g Ground) WriteVariable(ctx context.Context, v *Variable) error {
	query := url.Values{"cas": {fmt.Sprint(v.ModifyIndex)}}
	err := g.Nomad.Call(ctx, http.MethodPut, "/v1/var/"+v.Path+"?"+query.Encode(), v, nil)
	if api.HasStatus(err, http.StatusConflict) {
		return fmt.Errorf("the Nomad Variable %s has just been changed by somebody else; run again", v.Path)
	}
	if err != nil {
		return fmt.Errorf("write the Nomad Variable %s: %w", v.Path, err)
	}
	return nil
}

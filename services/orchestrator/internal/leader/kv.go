package leader

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/consul/api"
)

// maxKeys and maxValue bound what is taken from Consul KV.
const (
	maxKeys  = 100
	maxValue = 1024
)

// KV reads the keys below a prefix, without the prefix.
func (e *Elector) KV(ctx context.Context, prefix string) (map[string]string, error) {
	if e.o.Alone {
		return map[string]string{}, nil
	}
	pairs, _, err := e.consul.KV().List(prefix, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("Consul KV %s: %w", prefix, err)
	}
	out := map[string]string{}
	for _, p := range pairs {
		name := strings.TrimPrefix(p.Key, prefix)
		if name == "" || len(out) >= maxKeys {
			continue
		}
		out[name] = string(p.Value[:min(len(p.Value), maxValue)])
	}
	return out, nil
}

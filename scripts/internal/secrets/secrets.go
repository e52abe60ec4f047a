// Package secrets makes the secrets of the platform's jobs and keeps them in Nomad Variables: each job reads its own, and nothing else.
package secrets

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"math/big"
	"slices"

	"flowplatform/scripts/internal/ground"
)

// place is where a secret is kept: a key of a Nomad Variable. The workload identity of job j may read nomad/jobs/<j> and
// nothing else, so what two jobs need stands in two places.
type place struct{ Path, Key string }

// secret is one generated value and the places that hold it, the one that decides first.
type secret struct {
	Generate func() (string, error)
	Places   []place
}

func ofJob(job, key string) place { return place{"nomad/jobs/" + job, key} }

func secrets() []secret {
	password := func(places ...place) secret { return secret{Generate: alphanumeric(32), Places: places} }
	return []secret{
		password(ofJob("postgres", "flow_owner_password"), ofJob("migrate", "database_password")),
		password(ofJob("postgres", "flow_gateway_password"), ofJob("gateway", "database_password")),
		password(ofJob("postgres", "flow_orchestrator_password"), ofJob("orchestrator", "database_password")),
		password(ofJob("postgres", "flow_worker_password"), ofJob("worker", "database_password")),
		password(ofJob("rabbitmq", "cookie")),
		password(ofJob("rabbitmq", "gateway_password"), ofJob("gateway", "rabbitmq_password")),
		password(ofJob("rabbitmq", "orchestrator_password"), ofJob("orchestrator", "rabbitmq_password")),
		password(ofJob("rabbitmq", "worker_password"), ofJob("worker", "rabbitmq_password")),
		password(ofJob("rabbitmq", "flow_nodes_password"), ofJob("worker", "flow_nodes_password")),
		password(ofJob("redis", "gateway_password"), ofJob("gateway", "redis_password")),
		password(ofJob("redis", "orchestrator_password"), ofJob("orchestrator", "redis_password")),
		password(ofJob("redis", "worker_password"), ofJob("worker", "redis_password")),
		{Generate: alphanumeric(48), Places: []place{
			ofJob("gateway", "internal_token"), ofJob("orchestrator", "internal_token"), ofJob("worker", "internal_token"),
		}},
		// Who has it opens credentials: the orchestrator doesn't.
		{Generate: alphanumeric(48), Places: []place{ofJob("gateway", "credentials_token"), ofJob("worker", "credentials_token")}},
		{Generate: alphanumeric(64), Places: []place{ofJob("gateway", "jwt_secret")}},
		{Generate: key(32), Places: []place{ofJob("gateway", "credentials_key")}},
	}
}

// alphanumeric makes values that need no quoting in SQL, URLs, JSON, environment files and configuration.
func alphanumeric(length int) func() (string, error) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return func() (string, error) {
		b := make([]byte, length)
		for i := range b {
			n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
			if err != nil {
				return "", fmt.Errorf("draw random letters: %w", err)
			}
			b[i] = letters[n.Int64()]
		}
		return string(b), nil
	}
}

// key makes bytes for a cipher, in base64.
func key(bytes int) func() (string, error) {
	return func() (string, error) {
		b := make([]byte, bytes)
		if _, err := rand.Read(b); err != nil {
			return "", fmt.Errorf("draw a random key: %w", err)
		}
		return base64.StdEncoding.EncodeToString(b), nil
	}
}

// complete fills in what is missing in variables: a secret that stands somewhere is copied to its other places, one that
// stands nowhere is generated. It returns the paths that changed. Nothing that exists in its first place is ever replaced.
func complete(variables map[string]*ground.Variable, all []secret) ([]string, error) {
	changed := map[string]bool{}
	for _, s := range all {
		value := ""
		for _, p := range s.Places {
			if v := variables[p.Path]; value == "" && v != nil {
				value = v.Items[p.Key]
			}
		}
		if value == "" {
			generated, err := s.Generate()
			if err != nil {
				return nil, err
			}
			value = generated
		}
		for _, p := range s.Places {
			v := variables[p.Path]
			if v == nil {
				v = &ground.Variable{Path: p.Path, Items: map[string]string{}}
				variables[p.Path] = v
			}
			if v.Items[p.Key] != value {
				v.Items[p.Key] = value
				changed[p.Path] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(changed)), nil
}

// Ensure makes every secret that isn't there yet. It returns how many variables it wrote.
func Ensure(ctx context.Context, g ground.Ground) (int, error) {
	variables := map[string]*ground.Variable{}
	for _, s := range secrets() {
		for _, p := range s.Places {
			if _, read := variables[p.Path]; read {
				continue
			}
			v, err := g.ReadVariable(ctx, p.Path)
			if err != nil {
				return 0, err
			}
			variables[p.Path] = v
		}
	}
	changed, err := complete(variables, secrets())
	if err != nil {
		return 0, err
	}
	for _, path := range changed {
		if err := g.WriteVariable(ctx, variables[path]); err != nil {
			return 0, err
		}
	}
	return len(changed), nil
}

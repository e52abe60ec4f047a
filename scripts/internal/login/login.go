// Package login makes the first user of a new platform and proves that a flow runs.
package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/ground"
)

// Variable keeps the tokens of the first user: flowctl on this machine is logged in with one, make bench goes
// through the front door with the other.
const Variable = "flowplatform/login"

// User is what the gateway answers once, and never again. Who brings any of it along gets it so.
type User struct {
	Email      string `json:"email,omitempty"`
	Password   string `json:"password,omitempty"`
	Token      string `json:"token,omitempty"`
	BenchToken string `json:"benchToken,omitempty"`
}

// Gateway is the address of one that is healthy.
func Gateway(ctx context.Context, g ground.Ground) (string, error) {
	var instances []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
		}
	}
	if err := g.Consul.Get(ctx, "/v1/health/service/gateway?passing=true", &instances); err != nil {
		return "", fmt.Errorf("find a gateway: %w", err)
	}
	if len(instances) == 0 {
		return "", errors.New("find a gateway: none is healthy in Consul")
	}
	host := instances[0].Service.Address
	if host == "" {
		host = instances[0].Node.Address
	}
	return net.JoinHostPort(host, strconv.Itoa(instances[0].Service.Port)), nil
}

// FirstUser makes the first user through the gateway's internal API, which the front door doesn't forward. It returns nil
// when there is a user already. Dial reaches the gateway; nil is this machine's own network.
func FirstUser(ctx context.Context, g ground.Ground, brought User, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*User, error) {
	secrets, err := g.ReadVariable(ctx, "nomad/jobs/gateway")
	if err != nil {
		return nil, err
	}
	if secrets == nil {
		return nil, errors.New("the gateway has no secrets in Nomad Variables; they are made before the jobs run")
	}
	address, err := Gateway(ctx, g)
	if err != nil {
		return nil, err
	}
	gateway := api.New("http://"+address, "Authorization", "Bearer "+secrets.Items["internal_token"])
	if dial != nil {
		gateway.HTTP.Transport = &http.Transport{DialContext: dial}
	}
	var first User
	err = gateway.Call(ctx, http.MethodPost, "/internal/v1/bootstrap", brought, &first)
	if api.HasStatus(err, http.StatusConflict) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("make the first user: %w", err)
	}
	previous, err := g.ReadVariable(ctx, Variable)
	if err != nil {
		return &first, err
	}
	kept := &ground.Variable{Path: Variable, Items: map[string]string{"email": first.Email, "token": first.Token, "bench_token": first.BenchToken}}
	if previous != nil {
		kept.ModifyIndex = previous.ModifyIndex
	}
	return &first, g.WriteVariable(ctx, kept)
}

// Flowctl is the program for people, run by a program.
type Flowctl struct {
	Program string
	Dir     string // it works there
}

// Run runs it with additions to the environment and returns its standard output.
func (f Flowctl) Run(ctx context.Context, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, f.Program, args...)
	cmd.Dir = f.Dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("flowctl %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()+string(out)))
	}
	return out, nil
}

// Sample runs the sample flow of a file through the front door and returns its result.
func Sample(ctx context.Context, f Flowctl, env []string, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the sample flow: %w", err)
	}
	var flow struct{ Name string }
	if err := json.Unmarshal(b, &flow); err != nil {
		return "", fmt.Errorf("read the sample flow: %w", err)
	}
	env = append(env, "NO_COLOR=1")
	if _, err := f.Run(ctx, env, "flow", "apply", "-f", file); err != nil {
		return "", err
	}
	out, err := f.Run(ctx, env, "run", flow.Name, "--input", `{"name": "world"}`, "--wait", "-o", "json")
	if err != nil {
		return "", err
	}
	var execution struct {
		ID     string          `json:"id"`
		Status string          `json:"status"`
		Output json.RawMessage `json:"output"`
	}
	if err := json.Unmarshal(out, &execution); err != nil {
		return "", fmt.Errorf("read the sample's result: %w: %s", err, out)
	}
	if execution.Status != "succeeded" {
		return "", fmt.Errorf("the sample flow %q ended as %q: %s", flow.Name, execution.Status, out)
	}
	return fmt.Sprintf("%q gave %s", flow.Name, compact(execution.Output)), nil
}

func compact(raw json.RawMessage) string {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return string(raw)
	}
	b, err := json.Marshal(value)
	if err != nil {
		return string(raw)
	}
	return string(b)
}

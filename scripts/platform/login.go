package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// loginVariable keeps the tokens of the first user: flowctl on this machine is logged in with one, make bench goes
// through the front door with the other.
const loginVariable = "flowplatform/login"

// firstUser is what the gateway answers once, and never again.
type firstUser struct {
	Email      string `json:"email"`
	Password   string `json:"password"`
	Token      string `json:"token"`
	BenchToken string `json:"benchToken"`
}

// bootstrap makes the first user through the gateway's internal API, which the front door doesn't forward. It returns nil
// when there is a user already.
func (g ground) bootstrap(ctx context.Context) (*firstUser, error) {
	secrets, err := g.readVariable(ctx, "nomad/jobs/gateway")
	if err != nil {
		return nil, err
	}
	if secrets == nil {
		return nil, errors.New("the gateway has no secrets in Nomad Variables; make up makes them")
	}
	var instances []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
		}
	}
	if err := g.consul.get(ctx, "/v1/health/service/gateway?passing=true", &instances); err != nil {
		return nil, fmt.Errorf("find a gateway: %w", err)
	}
	if len(instances) == 0 {
		return nil, errors.New("find a gateway: none is healthy in Consul")
	}
	host := instances[0].Service.Address
	if host == "" {
		host = instances[0].Node.Address
	}
	gateway := newAPI("http://"+net.JoinHostPort(host, strconv.Itoa(instances[0].Service.Port)), "Authorization", "Bearer "+secrets.Items["internal_token"])
	var first firstUser
	err = gateway.call(ctx, http.MethodPost, "/internal/v1/bootstrap", map[string]any{}, &first)
	if hasStatus(err, http.StatusConflict) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("make the first user: %w", err)
	}
	previous, err := g.readVariable(ctx, loginVariable)
	if err != nil {
		return &first, err
	}
	kept := &variable{Path: loginVariable, Items: map[string]string{"email": first.Email, "token": first.Token, "bench_token": first.BenchToken}}
	if previous != nil {
		kept.ModifyIndex = previous.ModifyIndex
	}
	return &first, g.writeVariable(ctx, kept)
}

// logIn makes sure that flowctl on this machine can talk to this platform. It returns what to tell about it.
func (s settings) logIn(ctx context.Context, g ground) (string, error) {
	kept, err := g.readVariable(ctx, loginVariable)
	if err != nil {
		return "", err
	}
	if kept == nil {
		return "flowctl is not logged in: bin/flowctl login --server " + s.frontDoor(), nil
	}
	if server, loggedIn := s.whoami(ctx); loggedIn && sameServer(server, s.frontDoor()) {
		return "flowctl was logged in", nil
	}
	// In the environment, which only its owner can read: an argument would stand in the list of processes.
	env := []string{"FLOW_SERVER=" + s.frontDoor(), "FLOW_TOKEN=" + kept.Items["token"]}
	if _, err := s.runFlowctl(ctx, env, "login"); err != nil {
		return "", err
	}
	return "flowctl is logged in as " + kept.Items["email"], nil
}

// withoutLogin keeps this shell's own login out of flowctl, so that it takes the one that is stored.
func withoutLogin() []string { return []string{"FLOW_SERVER=", "FLOW_TOKEN="} }

// whoami asks flowctl for the server that it is logged in to.
func (s settings) whoami(ctx context.Context) (server string, loggedIn bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := s.runFlowctl(ctx, withoutLogin(), "whoami", "-o", "json")
	var who struct{ Server string }
	return who.Server, err == nil && json.Unmarshal(out, &who) == nil && who.Server != ""
}

func sameServer(a, b string) bool {
	plain := func(s string) string {
		return strings.Replace(strings.TrimRight(s, "/"), "//"+loopback+":", "//localhost:", 1)
	}
	return plain(a) == plain(b)
}

// sample runs the sample flow through the front door and returns its result.
func (s settings) sample(ctx context.Context) (string, error) {
	file := filepath.Join(s.Root, "scripts", "sample", "hello.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the sample flow: %w", err)
	}
	var flow struct{ Name string }
	if err := json.Unmarshal(b, &flow); err != nil {
		return "", fmt.Errorf("read the sample flow: %w", err)
	}
	env := append(withoutLogin(), "NO_COLOR=1")
	if _, err := s.runFlowctl(ctx, env, "flow", "apply", "-f", file); err != nil {
		return "", err
	}
	out, err := s.runFlowctl(ctx, env, "run", flow.Name, "--input", `{"name": "world"}`, "--wait", "-o", "json")
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

package main

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/login"
)

// logIn makes sure that flowctl on this machine can talk to this platform. It returns what to tell about it.
func (s settings) logIn(ctx context.Context, g ground.Ground) (string, error) {
	kept, err := g.ReadVariable(ctx, login.Variable)
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
	if _, err := s.flowctl().Run(ctx, env, "login"); err != nil {
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
	out, err := s.flowctl().Run(ctx, withoutLogin(), "whoami", "-o", "json")
	var who struct{ Server string }
	return who.Server, err == nil && json.Unmarshal(out, &who) == nil && who.Server != ""
}

func sameServer(a, b string) bool {
	plain := func(s string) string {
		return strings.Replace(strings.TrimRight(s, "/"), "//"+loopback+":", "//localhost:", 1)
	}
	return plain(a) == plain(b)
}

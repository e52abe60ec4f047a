package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flowplatform/scripts/internal/keys"
	"flowplatform/scripts/internal/spec"
)

const (
	agentToken = "11111111-1111-4111-8111-111111111111"
	nomadToken = "22222222-2222-4222-8222-222222222222"
)

// serverNode is a host that is everything at once.
func serverNode(t *testing.T, address string) spec.Node {
	t.Helper()
	return nodeOf(t, spec.Host{
		Name: "s1", Address: "198.51.100.1", PrivateAddress: address, Zone: "a", Class: "large",
		Roles: []string{spec.Server, spec.Data, spec.Worker, spec.FrontDoor},
	}, address)
}

// workerNode is a host that runs tasks, of a cluster with three servers.
func workerNode(t *testing.T) spec.Node {
	t.Helper()
	return nodeOf(t, spec.Host{Name: "w1", Address: "198.51.100.4", PrivateAddress: "10.9.0.4", Roles: []string{spec.Worker}}, "10.9.0.3", "10.9.0.1", "10.9.0.2")
}

func nodeOf(t *testing.T, h spec.Host, servers ...string) spec.Node {
	t.Helper()
	k, err := keys.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := k.Authority()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := k.Host(h)
	if err != nil {
		t.Fatal(err)
	}
	n := spec.Node{
		Cluster: "lab", Host: h, Servers: servers, Peers: append([]string{"10.9.0.2", "fd00::2"}, h.PrivateAddress),
		AllowedNetworks: []string{"203.0.113.0/24", "fd00:a::/64"},
		FrontDoor:       spec.Door{Port: 8080, Networks: []string{"192.0.2.0/24"}},
		Secrets: spec.Secrets{
			CA: string(ca), Certificate: string(pair.Certificate), Key: string(pair.Key),
			ConsulGossip: "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=", ConsulAgent: agentToken, ConsulNomad: nomadToken,
		},
	}
	if h.Has(spec.Server) {
		n.Secrets.NomadGossip = "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI="
	}
	if err := n.Check(); err != nil {
		t.Fatal(err)
	}
	return n
}

func desireOf(t *testing.T, n spec.Node) desired {
	t.Helper()
	d, err := desire(n, os.DirFS("../../configs"), facts{Interface: "eth1", SSHPorts: []int{22}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d desired) content(t *testing.T, path string) string {
	t.Helper()
	i := slices.IndexFunc(d.Files, func(f file) bool { return f.Path == path })
	if i < 0 {
		t.Fatalf("no file %s", path)
	}
	return string(bytes.TrimSpace(d.Files[i].Content))
}

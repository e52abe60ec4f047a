package spec_test

import (
	"path/filepath"
	"strings"
	"testing"

	"flowplatform/scripts/internal/keys"
	"flowplatform/scripts/internal/spec"
)

func TestNodeCheckSaysWhatIsWrongAndShowsNoSecret(t *testing.T) {
	t.Parallel()
	k, err := keys.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	host := spec.Host{Name: "s1", Address: "198.51.100.1", PrivateAddress: "10.0.0.1", Roles: []string{spec.Server, spec.Worker}}
	ca, err := k.Authority()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := k.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	other := host
	other.Name, other.PrivateAddress = "w1", "10.0.0.2"
	foreign, err := k.Host(other)
	if err != nil {
		t.Fatal(err)
	}
	good := func() spec.Node {
		return spec.Node{
			Cluster: "lab", Host: host, Servers: []string{"10.0.0.1"}, Peers: []string{"10.0.0.1", "10.0.0.2"},
			AllowedNetworks: []string{"203.0.113.0/24"}, FrontDoor: spec.Door{Port: 8080, Networks: []string{"0.0.0.0/0"}},
			Secrets: spec.Secrets{
				CA: string(ca), Certificate: string(pair.Certificate), Key: string(pair.Key), ConsulGossip: keys.GossipKey(), NomadGossip: keys.GossipKey(),
				ConsulAgent: keys.UUID(), ConsulNomad: keys.UUID(),
			},
		}
	}
	if err := good().Check(); err != nil {
		t.Fatalf("a good node is refused: %v", err)
	}
	for want, spoil := range map[string]func(*spec.Node){
		`cluster "Lab"`:                           func(n *spec.Node) { n.Cluster = "Lab" },
		`host.name "$(reboot)"`:                   func(n *spec.Node) { n.Host.Name = "$(reboot)" },
		`host.zone "a\"}"`:                        func(n *spec.Node) { n.Host.Zone = `a"}` },
		`host.class "a b"`:                        func(n *spec.Node) { n.Host.Class = "a b" },
		"host.port 70000":                         func(n *spec.Node) { n.Host.Port = 70000 },
		"host.roles: one or more":                 func(n *spec.Node) { n.Host.Roles = nil },
		`host.roles: "king"`:                      func(n *spec.Node) { n.Host.Roles = []string{"king"} },
		`host.private_address "127.0.0.1"`:        func(n *spec.Node) { n.Host.PrivateAddress = "127.0.0.1" },
		`servers: "10.0.0.x"`:                     func(n *spec.Node) { n.Servers = []string{"10.0.0.1", "10.0.0.x"} },
		"servers: host s1 has role server":        func(n *spec.Node) { n.Servers = []string{"10.0.0.2"} },
		"peers: 0 private addresses":              func(n *spec.Node) { n.Peers = nil },
		`peers: "fe80::1%eth0"`:                   func(n *spec.Node) { n.Peers = []string{"fe80::1%eth0"} },
		"allowed_networks: the networks":          func(n *spec.Node) { n.AllowedNetworks = nil },
		`front_door.networks: "everybody"`:        func(n *spec.Node) { n.FrontDoor.Networks = []string{"everybody"} },
		"front_door.port 0":                       func(n *spec.Node) { n.FrontDoor.Port = 0 },
		"secrets.consul_gossip: 32 bytes":         func(n *spec.Node) { n.Secrets.ConsulGossip = "c2VjcmV0" },
		"secrets.nomad_gossip: 32 bytes":          func(n *spec.Node) { n.Secrets.NomadGossip = "" },
		"secrets.consul_agent: a token is a UUID": func(n *spec.Node) { n.Secrets.ConsulAgent = "secret" },
		"secrets.consul_nomad: a token is a UUID": func(n *spec.Node) { n.Secrets.ConsulNomad = "" },
		"secrets.ca: no certificate":              func(n *spec.Node) { n.Secrets.CA = "secret" },
		"secrets.certificate and secrets.key":     func(n *spec.Node) { n.Secrets.Key = string(foreign.Key) },
		"it doesn't bear the name server.dc1":     func(n *spec.Node) { n.Secrets.Certificate, n.Secrets.Key = worker(t, k) },
		"it doesn't bear the name 10.0.0.1": func(n *spec.Node) {
			n.Secrets.Certificate, n.Secrets.Key = string(foreign.Certificate), string(foreign.Key)
		},
		"secrets.certificate: not of the authority": func(n *spec.Node) { n.Secrets.CA = stranger(t) },
	} {
		n := good()
		spoil(&n)
		err := n.Check()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wanted %q, got %v", want, err)
			continue
		}
		for _, secret := range []string{n.Secrets.ConsulAgent, n.Secrets.ConsulNomad, n.Secrets.ConsulGossip, n.Secrets.NomadGossip} {
			if len(secret) > 6 && strings.Contains(err.Error(), secret) {
				t.Errorf("%q shows a secret", err)
			}
		}
	}
}

// worker is the pair of a host that is no server.
func worker(t *testing.T, k *keys.Keys) (certificate, key string) {
	t.Helper()
	pair, err := k.Host(spec.Host{Name: "w9", PrivateAddress: "10.0.0.1", Roles: []string{spec.Worker}})
	if err != nil {
		t.Fatal(err)
	}
	return string(pair.Certificate), string(pair.Key)
}

// stranger is another cluster's authority.
func stranger(t *testing.T) string {
	t.Helper()
	k, err := keys.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := k.Authority()
	if err != nil {
		t.Fatal(err)
	}
	return string(ca)
}

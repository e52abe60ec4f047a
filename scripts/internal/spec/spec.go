// Package spec is what the programs that make a cluster tell each other: what the operator wants (Cluster, kept as cluster.json in the operator's
// directory) and what one host is told to be (Node, on the standard input of flownode, over SSH). It holds shapes and their rules, and does nothing.
//
// Two programs work with it. flowcluster (scripts/cluster) runs where the operator is: it makes the keys, reaches the hosts over SSH, and turns
// running agents into a platform. flownode (scripts/node) runs on a host as root: it makes the host what its Node says. Terraform only calls
// flowcluster, so that whatever can be done with a cluster can be done without it.
package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Roles of a host; it may have several.
const (
	Server    = "server"     // Consul's and Nomad's servers
	Data      = "data"       // PostgreSQL, RabbitMQ, Redis, Prometheus: the volumes are here
	Worker    = "worker"     // gateways, orchestrators, workers
	FrontDoor = "front-door" // NGINX, the address that users know
)

// Ports that are the same on every host of a cluster. Only SSH and the front door are open to anybody but the hosts themselves.
const (
	ConsulHTTP  = 8500 // plain, on the loopback alone, for what runs on the host
	ConsulHTTPS = 8501 // between hosts and through a tunnel: both sides show a certificate
	ConsulRPC   = 8300
	ConsulSerf  = 8301
	NomadHTTP   = 4646 // both sides show a certificate
	NomadRPC    = 4647
	NomadSerf   = 4648
	NomadClient = 4656 // the client's own HTTP port: a host may be server and client, as two processes
	NomadJWKS   = 4649 // on a server's loopback: the public keys of workload identities, for Consul
	Artifacts   = 16080
	Postgres    = 15432
	RabbitMQ    = 15671
	Redis       = 16379
	Prometheus  = 19090
)

// Where things are on a host.
const (
	Programs      = "/opt/flowplatform/bin"      // consul, nomad, flownode
	Bundles       = "/opt/flowplatform/bundle"   // the bundle as it was unpacked: <sum>/, and current
	Configuration = "/etc/flowplatform"          // what flownode has rendered; secrets in files of root's alone (0600)
	DataDir       = "/var/lib/flowplatform"      // consul/ nomad-server/ nomad-client/ volumes/ artifacts/
	NodeState     = "/var/lib/flowplatform/node" // the lock, and what was applied last
)

// Host is one machine, as a platform module hands it out and as bare metal's user writes it.
type Host struct {
	Name           string   `json:"name"`            // unique in the cluster; the agents' node name
	Address        string   `json:"address"`         // where the operator reaches it over SSH: an address or a name
	Port           int      `json:"port,omitempty"`  // of SSH, 22 when 0
	PrivateAddress string   `json:"private_address"` // where other hosts reach it: an IP address on one of its interfaces
	Roles          []string `json:"roles"`           // at least one
	Class          string   `json:"class,omitempty"` // Nomad's node class, for example large
	Zone           string   `json:"zone,omitempty"`  // where it fails together with others
	Jump           string   `json:"jump,omitempty"`  // SSH goes through this address, for hosts without a public one
}

// Has says whether the host has a role.
func (h Host) Has(role string) bool { return slices.Contains(h.Roles, role) }

// IsClient says whether the host runs tasks.
func (h Host) IsClient() bool { return h.Has(Data) || h.Has(Worker) || h.Has(FrontDoor) }

// SSH is how the operator reaches the hosts.
type SSH struct {
	User           string `json:"user"`             // root, or one who may sudo without a password
	PrivateKeyFile string `json:"private_key_file"` // "" takes what the operator's own SSH configuration and agent have
}

// Door is who comes in, and where.
type Door struct {
	Port     int      `json:"port"`     // of the front door, for example 8080
	Networks []string `json:"networks"` // who may reach it, as CIDR; 0.0.0.0/0 is everybody
}

// Cluster is what the operator wants. It holds no secret.
type Cluster struct {
	Name            string   `json:"name"`
	Hosts           []Host   `json:"hosts"`
	SSH             SSH      `json:"ssh"`
	AllowedNetworks []string `json:"allowed_networks"` // from where SSH is open, as CIDR
	FrontDoor       Door     `json:"front_door"`
	Bundle          string   `json:"bundle"`     // SHA-256 sum of the bundle file: the version of everything
	OnDestroy       string   `json:"on_destroy"` // "keep": volumes stay on the hosts; "erase": nothing does
}

// Node is what one host is told to be. It holds secrets: it travels over SSH on standard input and is kept in no file as a whole.
type Node struct {
	Cluster         string   `json:"cluster"`
	Host            Host     `json:"host"`
	Servers         []string `json:"servers"`          // private addresses of all servers, this one too
	Peers           []string `json:"peers"`            // private addresses of all hosts: the firewall lets them talk
	AllowedNetworks []string `json:"allowed_networks"` // SSH
	FrontDoor       Door     `json:"front_door"`
	Secrets         Secrets  `json:"secrets"`
}

// Secrets are a host's own: no host has another's key or token, and none has the authority's key or a management token.
type Secrets struct {
	CA              string `json:"ca"`                // PEM, the cluster's own authority
	Certificate     string `json:"certificate"`       // PEM; names: see CertificateNames
	Key             string `json:"key"`               // PEM
	ConsulGossip    string `json:"consul_gossip"`     // 32 bytes, base64
	NomadGossip     string `json:"nomad_gossip"`      // 32 bytes, base64; servers alone
	ConsulAgent     string `json:"consul_agent"`      // the Consul agent's own token: node identity
	ConsulNomad     string `json:"consul_nomad"`      // the token with which Nomad's agents here talk to Consul
	CertificateSpan string `json:"certificate_until"` // RFC 3339, for people
}

// Datacenter is the name of every cluster's only datacenter and, as the global region, of Nomad's certificates.
const Datacenter = "dc1"

// CertificateNames are the names that a host's certificate must bear, for what Consul's and Nomad's verify_server_hostname ask for.
func CertificateNames(h Host) []string {
	names := []string{"localhost", h.Name}
	if h.Has(Server) {
		names = append(names, "server."+Datacenter+".consul", "server.global.nomad")
	}
	if h.IsClient() {
		names = append(names, "client.global.nomad")
	}
	return names
}

var (
	nameShape = regexp.MustCompile(`^[a-z][a-z0-9-]{0,61}[a-z0-9]$`)
	allRoles  = []string{Server, Data, Worker, FrontDoor}
)

// Check returns everything that is wrong with what the operator wants, in words that say what to write instead.
func (c Cluster) Check() error {
	var wrong []error
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if !nameShape.MatchString(c.Name) {
		say("name %q: letters a-z, digits and -, beginning with a letter, 2 to 63 of them", c.Name)
	}
	if len(c.Hosts) == 0 {
		say("hosts: at least one")
	}
	seen := map[string]string{}
	unique := func(kind, value, host string) {
		if other, taken := seen[kind+value]; taken {
			say("hosts %s and %s have the same %s %s", other, host, kind, value)
		}
		seen[kind+value] = host
	}
	count := map[string]int{}
	for _, h := range c.Hosts {
		if !nameShape.MatchString(h.Name) {
			say("host %q: its name takes letters a-z, digits and -, beginning with a letter, 2 to 63 of them", h.Name)
		}
		if h.Address == "" || strings.HasPrefix(h.Address, "-") || strings.ContainsAny(h.Address, " \t\n@/") {
			say("host %s: address %q: the address or name under which SSH reaches it", h.Name, h.Address)
		}
		if strings.HasPrefix(h.Jump, "-") || strings.ContainsAny(h.Jump, " \t\n@/") {
			say("host %s: jump %q: the address or name of the host that SSH goes through", h.Name, h.Jump)
		}
		if ip, err := netip.ParseAddr(h.PrivateAddress); err != nil || ip.IsUnspecified() || ip.IsLoopback() {
			say("host %s: private_address %q: an IP address of one of its interfaces, under which the other hosts reach it", h.Name, h.PrivateAddress)
		}
		if h.Port < 0 || h.Port > 65535 {
			say("host %s: port %d: 1 to 65535, or none for 22", h.Name, h.Port)
		}
		unique("name", h.Name, h.Name)
		unique("private_address", h.PrivateAddress, h.Name)
		if len(h.Roles) == 0 {
			say("host %s: roles: one or more of %s", h.Name, strings.Join(allRoles, ", "))
		}
		for _, role := range h.Roles {
			if !slices.Contains(allRoles, role) {
				say("host %s: role %q: one of %s", h.Name, role, strings.Join(allRoles, ", "))
			}
			count[role]++
		}
	}
	if n := count[Server]; n != 1 && n != 3 && n != 5 {
		say("%d hosts have role server: 1 (no failure is survived), 3 or 5", n)
	}
	if n := count[Data]; n != 1 {
		say("%d hosts have role data: exactly 1", n)
	}
	for _, role := range []string{Worker, FrontDoor} {
		if count[role] == 0 {
			say("no host has role %s: at least one", role)
		}
	}
	if len(c.AllowedNetworks) == 0 {
		say("allowed_networks: the networks from which SSH is open, for example 203.0.113.0/24")
	}
	for field, networks := range map[string][]string{"allowed_networks": c.AllowedNetworks, "front_door.networks": c.FrontDoor.Networks} {
		for _, n := range networks {
			if _, err := netip.ParsePrefix(n); err != nil {
				say("%s: %q is no network; write it like 203.0.113.0/24, one address like 203.0.113.7/32", field, n)
			}
		}
	}
	if c.FrontDoor.Port < 1 || c.FrontDoor.Port > 65535 {
		say("front_door.port %d: 1 to 65535, for example 8080", c.FrontDoor.Port)
	}
	if c.OnDestroy != "keep" && c.OnDestroy != "erase" {
		say("on_destroy %q: keep or erase", c.OnDestroy)
	}
	return errors.Join(wrong...)
}

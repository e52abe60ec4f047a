package spec

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

var (
	tokenShape = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	wordShape  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// Check returns everything that is wrong with what a host is told to be. No message shows a secret.
func (n Node) Check() error {
	var wrong []error
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if !nameShape.MatchString(n.Cluster) {
		say("cluster %q: letters a-z, digits and -, beginning with a letter, 2 to 63 of them", n.Cluster)
	}
	if !nameShape.MatchString(n.Host.Name) {
		say("host.name %q: letters a-z, digits and -, beginning with a letter, 2 to 63 of them", n.Host.Name)
	}
	for field, value := range map[string]string{"host.class": n.Host.Class, "host.zone": n.Host.Zone} {
		if value != "" && !wordShape.MatchString(value) {
			say("%s %q: letters, digits, dots, underscores and -, at most 63 of them", field, value)
		}
	}
	if n.Host.Port < 0 || n.Host.Port > 65535 {
		say("host.port %d: 1 to 65535, or none for 22", n.Host.Port)
	}
	if len(n.Host.Roles) == 0 {
		say("host.roles: one or more of %s", strings.Join(allRoles, ", "))
	}
	for _, role := range n.Host.Roles {
		if !slices.Contains(allRoles, role) {
			say("host.roles: %q is none of %s", role, strings.Join(allRoles, ", "))
		}
	}
	n.checkAddresses(say)
	n.Secrets.check(n.Host, say)
	return errors.Join(wrong...)
}

func (n Node) checkAddresses(say func(string, ...any)) {
	isAddress := func(s string) bool {
		ip, err := netip.ParseAddr(s)
		return err == nil && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast()
	}
	if !isAddress(n.Host.PrivateAddress) {
		say("host.private_address %q: an IP address of one of its interfaces, under which the other hosts reach it", n.Host.PrivateAddress)
	}
	for field, addresses := range map[string][]string{"servers": n.Servers, "peers": n.Peers} {
		if len(addresses) == 0 || len(addresses) > 10000 {
			say("%s: %d private addresses; 1 to 10000", field, len(addresses))
		}
		for _, a := range addresses {
			if !isAddress(a) {
				say("%s: %q is no IP address of a host", field, a)
			}
		}
	}
	if n.Host.Has(Server) && !slices.Contains(n.Servers, n.Host.PrivateAddress) {
		say("servers: host %s has role server, but its %s isn't among them", n.Host.Name, n.Host.PrivateAddress)
	}
	if len(n.AllowedNetworks) == 0 {
		say("allowed_networks: the networks from which SSH is open, for example 203.0.113.0/24")
	}
	for field, networks := range map[string][]string{"allowed_networks": n.AllowedNetworks, "front_door.networks": n.FrontDoor.Networks} {
		for _, network := range networks {
			if _, err := netip.ParsePrefix(network); err != nil {
				say("%s: %q is no network; write it like 203.0.113.0/24, one address like 203.0.113.7/32", field, network)
			}
		}
	}
	if n.FrontDoor.Port < 1 || n.FrontDoor.Port > 65535 {
		say("front_door.port %d: 1 to 65535, for example 8080", n.FrontDoor.Port)
	}
}

func (s Secrets) check(h Host, say func(string, ...any)) {
	gossip := map[string]string{"secrets.consul_gossip": s.ConsulGossip}
	if h.Has(Server) {
		gossip["secrets.nomad_gossip"] = s.NomadGossip
	}
	for field, value := range gossip {
		if b, err := base64.StdEncoding.DecodeString(value); err != nil || len(b) != 32 {
			say("%s: 32 bytes in base64, as consul keygen makes them", field)
		}
	}
	for field, value := range map[string]string{"secrets.consul_agent": s.ConsulAgent, "secrets.consul_nomad": s.ConsulNomad} {
		if !tokenShape.MatchString(value) {
			say("%s: a token is a UUID in small letters", field)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.CA)) {
		say("secrets.ca: no certificate in PEM")
		return
	}
	pair, err := tls.X509KeyPair([]byte(s.Certificate), []byte(s.Key))
	if err != nil {
		say("secrets.certificate and secrets.key: no pair in PEM: %v", err)
		return
	}
	// Without a check of the time: an expired one is for flownode check to say, and for a rotation to mend.
	options := x509.VerifyOptions{Roots: roots, CurrentTime: pair.Leaf.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if _, err := pair.Leaf.Verify(options); err != nil {
		say("secrets.certificate: not of the authority in secrets.ca: %v", err)
	}
	for _, name := range append(CertificateNames(h), h.PrivateAddress, "127.0.0.1") {
		if err := pair.Leaf.VerifyHostname(name); err != nil {
			say("secrets.certificate: it doesn't bear the name %s, which a host with roles %s needs", name, strings.Join(h.Roles, ", "))
		}
	}
}

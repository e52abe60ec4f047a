package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/scripts/internal/spec"
)

func TestFirewallRules(t *testing.T) {
	t.Parallel()
	n := workerNode(t)
	n.Peers = []string{"10.9.0.4", "10.9.0.2", "10.9.0.4"}
	n.AllowedNetworks = []string{"203.0.113.7/24", "10.0.0.0/8", "203.0.113.0/24", "10.9.0.0/16"} // they overlap
	n.FrontDoor.Networks = []string{"0.0.0.0/0", "::/0", "fd00::7/128"}
	n.Host.Roles = []string{spec.FrontDoor}
	got := firewallValues(n, []int{22, 2222})
	for name, want := range map[string][]string{
		"PEER_RULES": {"ip saddr 10.9.0.2 accept", "ip saddr 10.9.0.4 accept"},
		"SSH_RULES": {
			"ip saddr 10.0.0.0/8 tcp dport 22 accept", "ip saddr 10.0.0.0/8 tcp dport 2222 accept", "ip saddr 10.9.0.0/16 tcp dport 22 accept",
			"ip saddr 10.9.0.0/16 tcp dport 2222 accept", "ip saddr 203.0.113.0/24 tcp dport 22 accept", "ip saddr 203.0.113.0/24 tcp dport 2222 accept",
		},
		"FRONT_DOOR_RULES": {"ip6 saddr fd00::7 tcp dport 8080 accept", "meta nfproto ipv4 tcp dport 8080 accept", "meta nfproto ipv6 tcp dport 8080 accept"},
	} {
		var rules []string
		for line := range strings.Lines(got[name]) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
				rules = append(rules, line)
			}
		}
		if strings.Join(rules, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", name, strings.Join(rules, "\n"), strings.Join(want, "\n"))
		}
	}
	n.Host.Roles = []string{spec.Worker}
	if got := firewallValues(n, []int{22})["FRONT_DOOR_RULES"]; strings.Contains(got, "accept") {
		t.Errorf("a host without a front door opens it: %s", got)
	}
}

// TestFirewallInForce loads a host's firewall into a network of its own and connects from addresses of every kind.
func TestFirewallInForce(t *testing.T) {
	t.Parallel()
	n := serverNode(t, "10.9.0.1")
	inside, outside := newNamespace(t, "host"), newNamespace(t, "world")
	system(t, "ip", "link", "add", "eth0", "netns", string(inside), "type", "veth", "peer", "name", "eth0", "netns", string(outside))
	// Whoever is in the world is a neighbour here; what the firewall sees is where a packet comes from.
	for _, c := range []string{"addr add 10.9.0.1/24 dev eth0", "addr add fd00::1/64 dev eth0 nodad", "link set eth0 up", "route add default dev eth0", "-6 route add default dev eth0"} {
		inside.ip(t, c)
	}
	from := map[string]string{"peer": "10.9.0.2", "operator": "203.0.113.7", "user": "192.0.2.7", "stranger": "198.51.100.7", "peer6": "fd00::2", "operator6": "fd00:a::7", "stranger6": "fd00:b::7"}
	for _, c := range []string{"link set eth0 up", "route add default dev eth0", "-6 route add default dev eth0"} {
		outside.ip(t, c)
	}
	for _, address := range from {
		bits := 32
		if strings.Contains(address, ":") {
			bits = 128
		}
		outside.ip(t, strings.TrimSuffix(fmt.Sprintf("addr add %s/%d dev eth0 nodad", address, bits), map[bool]string{true: " nodad"}[bits == 32]))
	}
	rules := filepath.Join(t.TempDir(), "firewall.nft")
	if err := os.WriteFile(rules, []byte(desireOf(t, n).content(t, firewall)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it replaces itself
		if out, err := inside.command("nft", "-f", rules).CombinedOutput(); err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
	}
	ports := []int{22, n.FrontDoor.Port, spec.NomadHTTP, spec.ConsulHTTPS}
	for _, port := range append(ports, spec.Postgres) {
		inside.listen(t, "tcp", fmt.Sprintf(":%d", port))
	}
	reaches := func(who string, port int, patience time.Duration) error {
		source := netip.MustParseAddr(from[who])
		host := "10.9.0.1"
		if source.Is6() {
			host = "fd00::1"
		}
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: source.AsSlice()}}
		c, err := outside.dial(t.Context(), d, net.JoinHostPort(host, fmt.Sprint(port)))
		if err == nil {
			c.Close()
		}
		return err
	}
	open := map[string][]int{
		"peer": ports, "peer6": ports,
		"operator": {22}, "operator6": {22},
		"user": {n.FrontDoor.Port},
	}
	var tries sync.WaitGroup
	for who := range from {
		for _, port := range ports {
			tries.Go(func() {
				wanted := slices.Contains(open[who], port)
				// What is open is waited for; what is closed says nothing, for as long as anybody listens.
				patience := map[bool]time.Duration{true: 20 * time.Second, false: time.Second}[wanted]
				if err := reaches(who, port, patience); (err == nil) != wanted {
					t.Errorf("%s comes to port %d: %v, want open: %v", who, port, err, wanted)
				}
			})
		}
	}
	tries.Wait()
	// Without it, the stranger gets through: so what has stopped him is the firewall.
	if out, err := inside.command("nft", "delete", "table", "inet", "flowplatform").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	for _, who := range []string{"stranger", "stranger6"} {
		if err := reaches(who, spec.NomadHTTP, 20*time.Second); err != nil {
			t.Errorf("without a firewall, %s comes nowhere either: %v", who, err)
		}
	}
}

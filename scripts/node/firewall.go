package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flowplatform/scripts/internal/spec"
)

// firewallValues are the rules that differ from host to host, as the template of the firewall names them. A rule a network and not a
// set of all: in a set, networks that overlap are an error.
func firewallValues(n spec.Node, sshPorts []int) map[string]string {
	var peers, ssh, door []string
	for _, peer := range n.Peers {
		ip := netip.MustParseAddr(peer)
		peers = append(peers, from(netip.PrefixFrom(ip, ip.BitLen()))+" accept")
	}
	for _, network := range n.AllowedNetworks {
		for _, port := range sshPorts {
			ssh = append(ssh, fmt.Sprintf("%s tcp dport %d accept", from(netip.MustParsePrefix(network)), port))
		}
	}
	if n.Host.Has(spec.FrontDoor) {
		for _, network := range n.FrontDoor.Networks {
			door = append(door, fmt.Sprintf("%s tcp dport %d accept", from(netip.MustParsePrefix(network)), n.FrontDoor.Port))
		}
	}
	return map[string]string{
		"PEER_RULES":       rules("the cluster's own hosts", peers),
		"SSH_RULES":        rules("SSH", ssh),
		"FRONT_DOOR_RULES": rules("the front door", door),
	}
}

// from matches where a packet comes from.
func from(network netip.Prefix) string {
	network = network.Masked()
	family, number := "ip", "ipv4"
	if network.Addr().Is6() {
		family, number = "ip6", "ipv6"
	}
	switch {
	case network.Bits() == 0:
		return "meta nfproto " + number
	case network.IsSingleIP():
		return family + " saddr " + network.Addr().String()
	}
	return family + " saddr " + network.String()
}

// rules is one rule a line, sorted: the same hosts in another order are the same firewall.
func rules(what string, lines []string) string {
	slices.Sort(lines)
	lines = slices.Compact(lines)
	if len(lines) == 0 {
		return "    # " + what + ": nobody"
	}
	return "    # " + what + "\n    " + strings.Join(lines, "\n    ")
}

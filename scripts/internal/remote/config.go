package remote

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"flowplatform/scripts/internal/spec"
)

// configuration is the text of an ssh_config(5) for the hosts of a cluster. A host is known by its name in the cluster, not by its address: one that was
// replaced, or whose address another machine had before, is told from the old one. What isn't said here comes from the operator's own configuration.
func configuration(hosts []spec.Host, ssh spec.SSH, knownHosts string) string {
	var b strings.Builder
	b.WriteString("# Written by flowcluster. By hand: ssh -F this-file <name of the host>\n")
	target := func(h spec.Host) string {
		if h.Port != 0 && h.Port != 22 {
			return fmt.Sprintf("\n  Port %d", h.Port)
		}
		return ""
	}
	for _, h := range hosts {
		fmt.Fprintf(&b, "\nHost %s\n  HostName %s%s\n  HostKeyAlias %s\n", h.Name, h.Address, target(h), h.Name)
		if h.Jump != "" {
			fmt.Fprintf(&b, "  ProxyJump %s\n", h.Jump)
		}
	}
	b.WriteString("\nHost *\n")
	fmt.Fprintf(&b, "  User %s\n", ssh.User)
	if ssh.PrivateKeyFile != "" {
		fmt.Fprintf(&b, "  IdentityFile %q\n  IdentitiesOnly yes\n", ssh.PrivateKeyFile)
	}
	fmt.Fprintf(&b, "  UserKnownHostsFile %q\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking accept-new\n", knownHosts)
	b.WriteString("  BatchMode yes\n  ConnectTimeout 10\n  ServerAliveInterval 5\n  ServerAliveCountMax 4\n  ForwardAgent no\n  ForwardX11 no\n  LogLevel ERROR\n")
	for _, file := range []string{"~/.ssh/config", "/etc/ssh/ssh_config"} {
		fmt.Fprintf(&b, "  Include %s\n", file)
	}
	return b.String()
}

// WriteConfig writes ssh_config into the operator's directory, beside known_hosts, and returns its path.
func WriteConfig(dir string, hosts []spec.Host, ssh spec.SSH) (string, error) {
	path := filepath.Join(dir, "ssh_config")
	text := configuration(hosts, ssh, filepath.Join(dir, "known_hosts"))
	if b, err := os.ReadFile(path); err == nil && string(b) == text {
		return path, nil
	}
	f, err := os.CreateTemp(dir, ".ssh_config-*")
	if err != nil {
		return "", fmt.Errorf("write ssh_config: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("write ssh_config: %w", err)
	}
	return path, nil
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"flowplatform/scripts/internal/keys"
	"flowplatform/scripts/internal/remote"
	"flowplatform/scripts/internal/spec"
)

// operator is one cluster as its operator has it in a directory.
type operator struct {
	Dir     string
	Cluster spec.Cluster
	Keys    *keys.Keys

	network *remote.Network
}

// open reads the directory of a cluster that was initialized.
func open(dir string) (*operator, error) {
	o, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(o.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no cluster: flowcluster init --dir %s --bundle FILE < cluster.json", dir, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	if err := json.Unmarshal(b, &o.Cluster); err != nil {
		return nil, fmt.Errorf("read %s: %w", o.path("cluster.json"), err)
	}
	if err := o.Cluster.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", o.path("cluster.json"), err)
	}
	return o, nil
}

// openDir makes the directory, or refuses one that others can look into.
func openDir(dir string) (*operator, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("the operator's directory: %w", err)
	}
	if err := keys.Private(absolute); err != nil {
		return nil, err
	}
	k, err := keys.Open(filepath.Join(absolute, "keys"))
	if err != nil {
		return nil, err
	}
	return &operator{Dir: absolute, Keys: k}, nil
}

func (o *operator) path(elements ...string) string {
	return filepath.Join(append([]string{o.Dir}, elements...)...)
}

// bundle is the directory of the release that is wanted.
func (o *operator) bundle(elements ...string) string {
	return o.path(append([]string{"bundle", o.Cluster.Bundle}, elements...)...)
}

// lock waits for its turn: commands on one host may run beside those on others, and only one command at a time works on the cluster as a whole.
func (o *operator) lock(name string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(o.path(".lock-"+name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		waiting()
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock: %w", err)
		}
	}
	return func() { f.Close() }, nil
}

// host finds a host of the cluster by its name.
func (o *operator) host(name string) (spec.Host, error) {
	i := slices.IndexFunc(o.Cluster.Hosts, func(h spec.Host) bool { return h.Name == name })
	if i < 0 {
		return spec.Host{}, fmt.Errorf("the cluster has no host %q; it has %s", name, namesOf(o.Cluster.Hosts))
	}
	return o.Cluster.Hosts[i], nil
}

func namesOf(hosts []spec.Host) string {
	text := ""
	for i, h := range hosts {
		if i > 0 {
			text += ", "
		}
		text += h.Name
	}
	return text
}

// with are the hosts that have a role.
func (o *operator) with(role string) []spec.Host {
	return slices.DeleteFunc(slices.Clone(o.Cluster.Hosts), func(h spec.Host) bool { return !h.Has(role) })
}

// remembered is a host as it was last known, also when it is no longer wanted; false when nothing is known of it.
func (o *operator) remembered(name string) (spec.Host, bool) {
	var h spec.Host
	b, err := os.ReadFile(o.path("hosts", filepath.Base(name)+".json"))
	return h, err == nil && json.Unmarshal(b, &h) == nil && h.Name == name
}

// remember writes down how a host is reached.
func (o *operator) remember(h spec.Host) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fmt.Errorf("remember host %s: %w", h.Name, err)
	}
	return replaceFile(o.path("hosts", h.Name+".json"), append(b, '\n'))
}

// everybody are all hosts that the directory knows: those that are wanted, and those that were.
func (o *operator) everybody() []spec.Host {
	all := slices.Clone(o.Cluster.Hosts)
	files, _ := filepath.Glob(o.path("hosts", "*.json"))
	for _, file := range files {
		name := filepath.Base(file[:len(file)-len(".json")])
		if slices.ContainsFunc(all, func(h spec.Host) bool { return h.Name == name }) {
			continue
		}
		if h, ok := o.remembered(name); ok {
			all = append(all, h)
		}
	}
	return all
}

// reach opens the way to the hosts.
func (o *operator) reach() (*remote.Network, error) {
	if o.network != nil {
		return o.network, nil
	}
	config, err := remote.WriteConfig(o.Dir, o.everybody(), o.Cluster.SSH)
	if err != nil {
		return nil, err
	}
	o.network, err = remote.Open(config, o.Cluster.SSH.User)
	return o.network, err
}

// Close ends the connections to hosts.
func (o *operator) Close() {
	if o.network != nil {
		o.network.Close()
	}
}

// replaceFile replaces a file whole; a reader never sees half of it.
func replaceFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func port(number int) string { return strconv.Itoa(number) }

func address(host string, number int) string { return net.JoinHostPort(host, port(number)) }

func either(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

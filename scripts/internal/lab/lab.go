// Package lab makes hosts on this machine: each has a root file system, an init (systemd), an sshd and an address of its own on a bridge that leads
// nowhere else, and limits on its memory. They are machines to everything that reaches them over the network, at the price of a process tree: three
// of them answer on SSH within seconds. What installs and runs a cluster is tried on them as it is used on real machines.
//
//	machine ── bridge flab<N>, 10.221.<N>.1 ──┬── host, 10.221.<N>.11      (systemd-nspawn; root: an overlay over a template that is made once)
//	                                          ├── host, 10.221.<N>.12
//	                                          └── outside, 10.221.<N>.250  (a namespace: a neighbour on the wire who is nobody's friend)
//
// There is no route to the outside and no name server: whoever needs the internet on such a host fails.
//
// Everything of a lab follows from its directory and its number, so that a lab whose maker was killed can be taken down by anybody: the number is
// taken by making /run/flowlab/<N>, which names the directory. Labs of different numbers run side by side.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Lab is some hosts on one bridge. Its fields are what lab.json in its directory says.
type Lab struct {
	Dir    string   `json:"dir"`
	Number int      `json:"number"`
	Hosts  []Host   `json:"hosts"`
	Keys   []string `json:"keys,omitempty"` // public keys that are accepted beside the lab's own
}

// Host is one of them.
type Host struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Template string `json:"template"` // the directory under it
	MemoryMB int    `json:"memory_mb"`
}

// Options of a lab, or of hosts that are added to one.
type Options struct {
	Names    []string      // of the hosts, each alone or with the last number of its address (w1:31); those that are there already stay as they are
	Number   int           // of the lab, where its addresses have to be known before it is made; 0 takes any
	Keys     []string      // public SSH keys that the hosts accept beside the lab's own
	Bare     bool          // a plain Debian, without the packages of the platform's roles
	MemoryMB int           // the most that a host may use, its tasks included; 0 is no limit
	Owner    int           // a process whose end makes the lab garbage, which the next lab sweeps away; 0: it stays until Down
	Install  string        // scripts/install, which says what the packages of the roles are
	Say      func(string)  // progress, a line at a time
	Wait     time.Duration // how long hosts may take until SSH answers [2m]
}

const (
	lowest  = 11 // last number of a host's address
	highest = 249
)

// Bridge is the name of the lab's network interface on this machine.
func (l *Lab) Bridge() string { return fmt.Sprintf("flab%d", l.Number) }

// Machine is this machine's address on the bridge: what an operator's address is to the hosts.
func (l *Lab) Machine() string { return l.address(1) }

// Outside is the address of the namespace that belongs to nobody (see Command).
func (l *Lab) Outside() string { return l.address(250) }

func (l *Lab) address(last int) string { return fmt.Sprintf("10.221.%d.%d", l.Number, last) }

// Key is the file with the private SSH key that root and the user debian of all hosts accept.
func (l *Lab) Key() string { return filepath.Join(l.Dir, "key") }

// Host finds a host by its name.
func (l *Lab) Host(name string) (Host, error) {
	for _, h := range l.Hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return Host{}, fmt.Errorf("lab: no host %q in %s", name, l.Dir)
}

// Up makes the lab of a directory, or what is missing of it, and returns when SSH answers on every host. After an error what was made stays for
// the next Up, or for Down.
func Up(ctx context.Context, dir string, o Options) (*Lab, error) {
	if err := able(); err != nil {
		return nil, err
	}
	if err := ground(o.Names); err != nil {
		return nil, err
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Minute
	}
	if err := Sweep(ctx); err != nil {
		o.Say(fmt.Sprintf("an old lab could not be taken away: %v", err))
	}
	template, err := templateFor(ctx, o)
	if err != nil {
		return nil, err
	}
	l, err := enter(ctx, dir, template, o)
	if err != nil {
		return l, err
	}
	for _, name := range o.Names {
		name, _, _ = strings.Cut(name, ":")
		start := time.Now()
		if err := l.WaitSSH(ctx, name, o.Wait); err != nil {
			return l, err
		}
		h, _ := l.Host(name)
		o.Say(fmt.Sprintf("%s: SSH answers at %s (%.1fs)", name, h.Address, time.Since(start).Seconds()))
	}
	return l, nil
}

// enter makes and starts what is missing of a lab. Several may add hosts to one at a time: each waits for the one before it.
func enter(ctx context.Context, dir, template string, o Options) (*Lab, error) {
	unlock, err := lockOf(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		l, err = found(dir, o)
	}
	if err != nil {
		return nil, err
	}
	if err := l.network(ctx); err != nil {
		return l, err
	}
	for _, key := range o.Keys {
		if !slices.Contains(l.Keys, key) {
			l.Keys = append(l.Keys, key)
		}
	}
	for _, name := range o.Names {
		name, number, _ := strings.Cut(name, ":")
		if _, err := l.Host(name); err == nil {
			continue
		}
		last, err := l.place(number)
		if err != nil {
			return l, fmt.Errorf("lab: host %s: %w", name, err)
		}
		l.Hosts = append(l.Hosts, Host{Name: name, Address: l.address(last), Template: template, MemoryMB: o.MemoryMB})
	}
	if err := l.write(); err != nil {
		return l, err
	}
	for _, name := range o.Names {
		name, _, _ = strings.Cut(name, ":")
		if err := l.Start(ctx, name); err != nil {
			return l, err
		}
	}
	return l, nil
}

// place is the last number of a new host's address: the one that is asked for, or the first that is free.
func (l *Lab) place(asked string) (int, error) {
	taken := func(last int) bool {
		return slices.ContainsFunc(l.Hosts, func(h Host) bool { return h.Address == l.address(last) })
	}
	if asked != "" {
		last, err := strconv.Atoi(asked)
		if err != nil || last < lowest || last > highest {
			return 0, fmt.Errorf("number %q: from %d to %d", asked, lowest, highest)
		}
		if taken(last) {
			return 0, fmt.Errorf("%s is another host's", l.address(last))
		}
		return last, nil
	}
	for last := lowest; last <= highest; last++ {
		if !taken(last) {
			return last, nil
		}
	}
	return 0, fmt.Errorf("all %d addresses are taken", highest-lowest+1)
}

// Able says why this machine can't have a lab, or nil: for tests that then have to be left out.
func Able(ctx context.Context) error {
	if err := able(); err != nil {
		return err
	}
	return reachable(ctx)
}

// ground refuses names that can be no host's.
func ground(names []string) error {
	if most := highest - lowest + 1; len(names) == 0 || len(names) > most {
		return fmt.Errorf("lab: %d hosts: from 1 to %d", len(names), most)
	}
	for _, n := range names {
		n, _, _ = strings.Cut(n, ":")
		if n == "" || len(n) > 40 || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || n[0] == '-' {
			return fmt.Errorf("lab: host %q: 1 to 40 letters a-z, digits and -", n)
		}
	}
	return nil
}

// Open reads the lab of a directory.
func Open(dir string) (*Lab, error) {
	content, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if err != nil {
		return nil, fmt.Errorf("lab: there is no lab in %s: %w", dir, err)
	}
	var l Lab
	if err := json.Unmarshal(content, &l); err != nil {
		return nil, fmt.Errorf("lab: %s/lab.json: %w", dir, err)
	}
	return &l, nil
}

// Remove takes one host away, with its files.
func (l *Lab) Remove(ctx context.Context, name string) error {
	unlock, err := lockOf(l.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := Open(l.Dir)
	if err != nil {
		return err
	}
	*l = *now // others may have added hosts meanwhile
	if _, err := l.Host(name); err != nil {
		return err
	}
	if err := l.Kill(ctx, name); err != nil {
		return err
	}
	if err := unmountBelow(l.base(name)); err != nil {
		return err
	}
	if err := l.removeGroups(name); err != nil {
		return err
	}
	if err := os.RemoveAll(l.base(name)); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	l.Hosts = slices.DeleteFunc(l.Hosts, func(h Host) bool { return h.Name == name })
	return l.write()
}

// Down takes the lab away: its hosts, its network, its directory. It may be called again after a failure.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := lockOf(l.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, h := range l.Hosts {
		if err := l.Kill(ctx, h.Name); err != nil {
			return err
		}
	}
	if err := unmountBelow(l.Dir); err != nil {
		return err
	}
	if err := l.removeGroups(""); err != nil {
		return err
	}
	if err := l.removeNetwork(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(registry, strconv.Itoa(l.Number))); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

func (l *Lab) write() error { return writeJSON(filepath.Join(l.Dir, "lab.json"), l) }

// writeJSON writes a file as a whole, or not at all.
func writeJSON(file string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.WriteFile(file+".new", append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

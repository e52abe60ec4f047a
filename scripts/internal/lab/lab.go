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
	Dir    string `json:"dir"`
	Number int    `json:"number"`
	Hosts  []Host `json:"hosts"`
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
	Names    []string      // of the hosts; those that are there already stay as they are
	Bare     bool          // a plain Debian, without the packages of the platform's roles
	MemoryMB int           // the most that a host may use, its tasks included; 0 is no limit
	Owner    int           // a process whose end makes the lab garbage, which the next lab sweeps away; 0: it stays until Down
	Install  string        // scripts/install, which says what the packages of the roles are
	Say      func(string)  // progress, a line at a time
	Wait     time.Duration // how long hosts may take until SSH answers [2m]
}

const (
	registry = "/run/flowlab"
	most     = 200 // labs on one machine
	perLab   = 200 // hosts in one
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
	l, err := Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		l, err = found(dir, o.Owner)
	}
	if err != nil {
		return nil, err
	}
	if err := l.network(ctx); err != nil {
		return l, err
	}
	for _, name := range o.Names {
		if _, err := l.Host(name); err == nil {
			continue
		}
		l.Hosts = append(l.Hosts, Host{Name: name, Address: l.address(11 + len(l.Hosts)), Template: template, MemoryMB: o.MemoryMB})
	}
	if err := l.write(); err != nil {
		return l, err
	}
	for _, h := range l.Hosts {
		if err := l.Start(ctx, h.Name); err != nil {
			return l, err
		}
	}
	for _, h := range l.Hosts {
		start := time.Now()
		if err := l.WaitSSH(ctx, h.Name, o.Wait); err != nil {
			return l, err
		}
		o.Say(fmt.Sprintf("%s: SSH answers at %s (%.1fs)", h.Name, h.Address, time.Since(start).Seconds()))
	}
	return l, nil
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
	if len(names) == 0 || len(names) > perLab {
		return fmt.Errorf("lab: %d hosts: from 1 to %d", len(names), perLab)
	}
	for _, n := range names {
		if n == "" || len(n) > 20 || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || n[0] == '-' {
			return fmt.Errorf("lab: host %q: 1 to 20 letters a-z, digits and -", n)
		}
	}
	return nil
}

// found takes a number for a new lab and makes its directory.
func found(dir string, owner int) (*Lab, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(registry, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	for number := 1; number <= most; number++ {
		entry := filepath.Join(registry, strconv.Itoa(number))
		if err := os.Mkdir(entry, 0o700); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		l := &Lab{Dir: dir, Number: number}
		record := claim{Dir: dir, Owner: owner, Born: born(owner)}
		if err := writeJSON(filepath.Join(entry, "lab.json"), record); err != nil {
			return nil, err
		}
		return l, l.write()
	}
	return nil, fmt.Errorf("lab: there are %d labs on this machine already (see: lab list)", most)
}

// claim is what the registry says of a number.
type claim struct {
	Dir   string `json:"dir"`
	Owner int    `json:"owner"`
	Born  string `json:"born"` // of the owner's process: its id alone may be another's by now
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

// List returns all labs of this machine.
func List() ([]*Lab, error) {
	entries, err := os.ReadDir(registry)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var labs []*Lab
	for _, e := range entries {
		c, number, err := claimOf(e.Name())
		if err != nil {
			continue // being made or taken down at this moment
		}
		l, err := Open(c.Dir)
		if err != nil {
			l = &Lab{Dir: c.Dir, Number: number}
		}
		labs = append(labs, l)
	}
	slices.SortFunc(labs, func(a, b *Lab) int { return a.Number - b.Number })
	return labs, nil
}

func claimOf(name string) (claim, int, error) {
	var c claim
	number, err := strconv.Atoi(name)
	if err != nil {
		return c, 0, err
	}
	content, err := os.ReadFile(filepath.Join(registry, name, "lab.json"))
	if err != nil {
		return c, 0, err
	}
	return c, number, json.Unmarshal(content, &c)
}

// Sweep takes down the labs whose owner has ended without doing so.
func Sweep(ctx context.Context) error {
	entries, _ := os.ReadDir(registry)
	var failed []error
	for _, e := range entries {
		c, number, err := claimOf(e.Name())
		if err != nil || c.Owner == 0 || born(c.Owner) == c.Born {
			continue
		}
		l := &Lab{Dir: c.Dir, Number: number}
		if known, err := Open(c.Dir); err == nil && known.Number == number {
			l = known
		}
		failed = append(failed, l.Down(ctx))
	}
	return errors.Join(failed...)
}

// Down takes the lab away: its hosts, its network, its directory. It may be called again after a failure.
func (l *Lab) Down(ctx context.Context) error {
	for _, h := range l.Hosts {
		if err := l.Kill(ctx, h.Name); err != nil {
			return err
		}
	}
	if err := l.unmount(); err != nil {
		return err
	}
	if err := l.removeGroups(); err != nil {
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

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"flowplatform/scripts/internal/spec"
)

// report is what check says of a host.
type report struct {
	Cluster  string            `json:"cluster"`
	Host     string            `json:"host"`
	Time     time.Time         `json:"time"` // by this host's clock; whoever asks compares it with his own
	Bundle   string            `json:"bundle"`
	Changes  []string          `json:"changes"`  // what apply would do
	Warnings []string          `json:"warnings"` // what apply would not mend
	Units    map[string]string `json:"units"`    // active, failed, …
	Versions map[string]string `json:"versions"`
	Expires  time.Time         `json:"certificate_expires"`
	Clock    string            `json:"clock"` // synchronized, not synchronized, of its host
	Disk     disk              `json:"disk"`
}

// disk is the file system with the data.
type disk struct {
	FreeBytes  uint64 `json:"free_bytes"`
	TotalBytes uint64 `json:"total_bytes"`
}

// When check warns.
const (
	expiresSoon = 30 * 24 * time.Hour
	diskIsFull  = 10 // per cent that should be free
)

// check says what apply would change, and how the host is. It changes nothing.
func check(ctx context.Context, args []string) error {
	o, err := parseOptions("check", args)
	if err != nil {
		return err
	}
	n, err := readNode(os.Stdin)
	if err != nil {
		return err
	}
	h := thisHost(os.Stdout)
	if err := h.ready(); err != nil {
		return err
	}
	f, err := h.learn(ctx, n)
	if err != nil {
		return err
	}
	d, err := desire(n, os.DirFS(o.Configs), f)
	if err != nil {
		return err
	}
	r := report{Cluster: n.Cluster, Host: n.Host.Name, Time: time.Now().UTC(), Bundle: h.bundle(), Changes: []string{}, Warnings: []string{}}
	if r.Changes, err = h.changes(ctx, n, d); err != nil {
		return err
	}
	if err := lockedOut(n, sessionOf(os.Getpid())); err != nil {
		r.Warnings = append(r.Warnings, err.Error())
	}
	h.look(ctx, n, d, &r)
	if o.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return err
		}
	} else {
		for _, line := range r.lines() {
			h.out.Line(line)
		}
	}
	if len(r.Changes) > 0 {
		return errChanges
	}
	return nil
}

// changes is what apply would do, in its order.
func (h host) changes(ctx context.Context, n spec.Node, d desired) ([]string, error) {
	changes := []string{}
	say := func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }
	s, err := h.readState()
	if err != nil {
		return nil, err
	}
	if s.Cluster != "" && (s.Cluster != n.Cluster || s.Host != n.Host.Name) {
		say("nothing: it is %s of cluster %s; take that away first: flownode remove --data keep", s.Host, s.Cluster)
	}
	for _, name := range h.unwanted(d) {
		say("stop and remove %s", name)
	}
	for _, dir := range d.Directories {
		settled, err := h.settled(dir)
		if err != nil {
			return nil, err
		}
		if !settled {
			say("make %s", dir.Path)
		}
	}
	for _, f := range d.Files {
		same, err := h.same(f)
		if err != nil {
			return nil, err
		}
		if !same {
			say("write %s", f.Path)
		}
	}
	strangers, err := h.strangers(d)
	if err != nil {
		return nil, err
	}
	for _, path := range strangers {
		say("remove %s", path)
	}
	for _, u := range d.Units {
		why, err := h.wouldStart(ctx, d, u, s)
		if err != nil {
			return nil, err
		}
		if why != "" {
			say("%s", why)
		}
	}
	return changes, nil
}

// wouldStart says what apply would do with a unit, "" for nothing.
func (h host) wouldStart(ctx context.Context, d desired, u unit, s state) (string, error) {
	fingerprint, err := h.fingerprint(d, u)
	if err != nil {
		return "", err
	}
	switch service := u.Name + ".service"; {
	case !h.is(ctx, "is-active", service):
		return "start " + u.Name, nil
	case s.Units[u.Name] != fingerprint:
		return "restart " + u.Name + ": its files or its program have changed", nil
	case u.Name == unitFirewall && h.rules(ctx) != s.Rules:
		return "restart " + u.Name + ": the rules in force aren't those that were loaded", nil
	case !h.is(ctx, "is-enabled", service):
		return "enable " + u.Name, nil
	}
	return "", nil
}

// look gathers how the host is. What can't be found out is left empty: check says so rather than fail.
func (h host) look(ctx context.Context, n spec.Node, d desired, r *report) {
	warn := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	r.Units, r.Versions = map[string]string{}, map[string]string{}
	for _, u := range d.Units {
		state, _ := h.run(ctx, "systemctl", "is-active", u.Name+".service") // it says the state and fails, when it isn't active
		r.Units[u.Name] = strings.TrimSpace(state)
	}
	for _, program := range []string{"consul", "nomad"} {
		said, err := h.run(ctx, spec.Programs+"/"+program, "version")
		if first, _, _ := strings.Cut(said, "\n"); err == nil {
			r.Versions[program] = first[strings.LastIndex(first, " ")+1:]
		}
	}
	var err error
	if r.Expires, err = expiry([]byte(n.Secrets.Certificate)); err != nil {
		warn("the certificate can't be read: %v", err)
	} else if left := r.Expires.Sub(r.Time); left < expiresSoon {
		warn("the certificate is good for %d days more, until %s: flowcluster rotate certificates", int(left.Hours()/24), r.Expires.Format(time.DateOnly))
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(h.path(spec.DataDir), &fs); err == nil {
		r.Disk = disk{FreeBytes: fs.Bavail * uint64(fs.Bsize), TotalBytes: fs.Blocks * uint64(fs.Bsize)}
		if r.Disk.FreeBytes*100 < r.Disk.TotalBytes*diskIsFull {
			warn("%s has %s free of %s", spec.DataDir, gigabytes(r.Disk.FreeBytes), gigabytes(r.Disk.TotalBytes))
		}
	}
	if r.Clock = h.clock(ctx); r.Clock == "not synchronized" {
		warn("the clock isn't synchronized: timedatectl timesync-status")
	}
}

func (h host) clock(ctx context.Context) string {
	if _, err := h.run(ctx, "systemd-detect-virt", "--container", "--quiet"); err == nil {
		return "of its host"
	}
	switch said, err := h.run(ctx, "timedatectl", "show", "-P", "NTPSynchronized"); {
	case err != nil:
		return "unknown"
	case strings.TrimSpace(said) == "yes":
		return "synchronized"
	default:
		return "not synchronized"
	}
}

func expiry(certificate []byte) (time.Time, error) {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return time.Time{}, errors.New("no PEM")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, err
	}
	return parsed.NotAfter.UTC(), nil
}

func gigabytes(bytes uint64) string { return fmt.Sprintf("%.1f GB", float64(bytes)/1e9) }

// lines is a report for people.
func (r report) lines() []string {
	var lines []string
	for _, c := range r.Changes {
		lines = append(lines, " + "+c)
	}
	for _, w := range r.Warnings {
		lines = append(lines, " ! "+w)
	}
	var units []string
	for _, name := range allUnits() {
		if state, wanted := r.Units[name]; wanted {
			units = append(units, strings.TrimPrefix(name, "flow-")+" "+state)
		}
	}
	var versions []string
	for name, version := range r.Versions {
		versions = append(versions, name+" "+version)
	}
	slices.Sort(versions)
	return append(lines,
		fmt.Sprintf(" %-12s %s", "units", strings.Join(units, ", ")),
		fmt.Sprintf(" %-12s %s, bundle %.12s", "versions", strings.Join(versions, ", "), r.Bundle),
		fmt.Sprintf(" %-12s until %s", "certificate", r.Expires.Format(time.DateOnly)),
		fmt.Sprintf(" %-12s %s free of %s", "disk", gigabytes(r.Disk.FreeBytes), gigabytes(r.Disk.TotalBytes)),
		fmt.Sprintf(" %-12s %s, %s", "clock", r.Time.Format(time.RFC3339), r.Clock))
}

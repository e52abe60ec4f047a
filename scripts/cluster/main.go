// Command flowcluster turns hosts into a cluster with the platform on it, and looks after it from then on. It runs where the operator is; Terraform calls it, and
// whatever Terraform does can be done with it by hand.
//
// It has one directory for each cluster, --dir:
//
//	cluster.json         what is wanted (spec.Cluster): no secret
//	hosts/<name>.json    each host as it was last known, so that one can be removed that is no longer wanted
//	keys/                the authority, certificates, gossip keys, tokens (package keys): 0700, made here, before they are used
//	bundle/<sum>/        the release, unpacked; <sum>.tar.gz as it is sent to hosts
//	ssh_config           ssh -F ssh_config <host>
//	known_hosts          the hosts' own keys, by name
//	jobs.hcl             what the jobs need to know of this cluster
//
// Every command compares what is with what should be and does only the difference. It can be interrupted at any point: the next run finishes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"flowplatform/scripts/internal/console"
)

// command is one thing that flowcluster does.
type command struct {
	Name string // one or two words
	Args string
	What string
	Run  func(ctx context.Context, c *console.Console, dir string, args []string) error
}

func commands() []command {
	return []command{
		{"init", "--bundle FILE", "takes what is wanted (cluster.json on standard input) and the release; makes what keys are missing", initialize},
		{"host apply", "NAME", "makes one host what it should be: release, packages, agents, firewall", hostApply},
		{"host check", "NAME", "says what host apply would change", hostCheck},
		{"host remove", "NAME", "drains a host, takes it out of the cluster and removes what was put on it; a dead one is forgotten", hostRemove},
		{"converge", "", "turns the hosts' agents into a platform: access rights, secrets, jobs, first user, sample flow", converge},
		{"apply", "", "host apply for all hosts, servers one at a time, then converge", applyEverything},
		{"upgrade", "--bundle FILE", "rolls out another release: of the platform, of Consul, of Nomad", upgrade},
		{"drain", "[--undo] NAME", "moves a host's tasks elsewhere and sends it no new ones, for work on it", drainHost},
		{"replace", "NAME", "puts a new machine in the place of a dead one: the old one's votes are taken, the new one is applied", replaceHost},
		{"rotate", "gossip|certificates|tokens", "new keys in the place of the old ones, without a stop", rotate},
		{"backup", "DIR", "snapshots of Consul and Nomad and a copy of PostgreSQL, into a new directory", backup},
		{"restore", "DIR", "brings a backup back, into a cluster that converged", restore},
		{"dismantle", "", "stops the jobs, for hosts that are about to be removed", dismantle},
		{"exec", "-- COMMAND…", "runs a command that finds Consul, Nomad and the platform in its environment", execute},
	}
}

func usage() string {
	var b strings.Builder
	b.WriteString("Usage: flowcluster COMMAND [--dir DIR] …\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-24s %s\n", strings.TrimSpace(c.Name+" "+c.Args), c.What)
	}
	b.WriteString("\n  --dir DIR   the operator's directory of the cluster [$FLOW_CLUSTER_DIR]: keys, tokens, the release. Keep a copy of it in a safe place.\n")
	return b.String()
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out *os.File, complaints io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	syscall.Umask(0o077)
	dir, args, err := takeDir(args, os.Getenv("FLOW_CLUSTER_DIR"))
	if err != nil {
		fmt.Fprintf(complaints, "flowcluster: %v\n", err)
		return 2
	}
	if len(args) == 0 {
		fmt.Fprint(complaints, usage())
		return 2
	}
	if slices.Contains([]string{"help", "--help", "-h"}, args[0]) {
		fmt.Fprint(out, usage())
		return 0
	}
	for _, c := range commands() {
		words := strings.Fields(c.Name)
		if len(args) < len(words) || !slices.Equal(args[:len(words)], words) {
			continue
		}
		if dir == "" {
			fmt.Fprintf(complaints, "flowcluster %s: which cluster? --dir DIR, or FLOW_CLUSTER_DIR\n", c.Name)
			return 2
		}
		err := c.Run(ctx, console.New(out), dir, args[len(words):])
		return say(complaints, ctx, c.Name, err)
	}
	fmt.Fprintf(complaints, "flowcluster: no command %q\n\n%s", strings.Join(args, " "), usage())
	return 2
}

// say turns an error into words and an exit status.
func say(complaints io.Writer, ctx context.Context, name string, err error) int {
	var status exitStatus
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &wrong):
		fmt.Fprintf(complaints, "flowcluster %s: %v\n\n%s", name, err, usage())
		return 2
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted; the same command continues from here")
	}
	fmt.Fprintf(complaints, "\nflowcluster %s: %v\n", name, err)
	return 1
}

// exitStatus is the status of a command that was run for somebody, or that has said everything itself.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError says that the command line is wrong.
type usageError string

func (e usageError) Error() string { return string(e) }

// takeDir takes --dir out of the arguments, wherever it stands before a "--".
func takeDir(args []string, fallback string) (dir string, rest []string, err error) {
	dir = fallback
	for i := 0; i < len(args); i++ {
		value, joined := strings.CutPrefix(args[i], "--dir=")
		switch {
		case args[i] == "--":
			return dir, append(rest, args[i:]...), nil
		case joined:
			dir = value
		case args[i] == "--dir":
			if i++; i == len(args) {
				return "", nil, errors.New("--dir: which directory?")
			}
			dir = args[i]
		default:
			rest = append(rest, args[i])
			continue
		}
		if dir == "" {
			return "", nil, errors.New("--dir: which directory?")
		}
	}
	return dir, rest, nil
}

// oneFlag is the value of the only flag that a command takes, and must have.
func oneFlag(command, name string, args []string) (string, error) {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	value := flags.String(name, "", "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 || *value == "" {
		return "", usageError(fmt.Sprintf("%s takes --%s …", command, name))
	}
	return *value, nil
}

// oneName is the only argument of commands that are about a host.
func oneName(args []string) (string, error) {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return "", usageError("the name of one host is wanted")
	}
	return args[0], nil
}

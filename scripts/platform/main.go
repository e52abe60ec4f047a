// Command platform brings the whole platform up on one machine, takes it down, and removes its data.
//
// It is the program behind make up, make down and make clean. Each run compares what is with what should be and does only
// the difference: a second run changes nothing. In order: it installs what is missing (scripts/install), builds the
// services, starts Consul and Nomad, makes the secrets, gives Nomad the jobs that differ, waits until everything is
// healthy, makes the first user, logs flowctl in, and runs a sample flow.
//
// Everything that it writes is below one directory, FLOW_DATA_DIR:
//
//	bin/          nomad and consul
//	config/       the agents' configuration as it was rendered, ports.json, jobs.hcl
//	run/ log/     what runs (process id, fingerprint) and what it says
//	consul/ nomad-server/ nomad-client/
//	volumes/ artifacts/
//
// The agents are plain processes here, with a session of their own, because the machine at hand may have no systemd;
// hosts of their own run the same configuration as services.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"flowplatform/scripts/internal/console"
)

const usage = `Usage: platform up|servers|down|clean|status

  up      installs, builds and starts what isn't there yet, and changes what differs
  servers the same without our own services: Consul, Nomad, PostgreSQL, RabbitMQ, Redis and the artifacts
  down    stops the jobs, then the agents; data stays
  clean   down, then removes everything below FLOW_DATA_DIR
  status  what runs and where

Environment (defaults in brackets; a port that was given once is remembered until clean):
`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if len(args) != 1 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Fprint(os.Stderr, usage+describeEnvironment())
		if len(args) == 1 {
			return 0
		}
		return 2
	}
	commands := map[string]func(context.Context, settings, *console.Console) error{
		"up":      up,
		"servers": servers,
		"down":    down,
		"clean":   clean,
		"status":  status,
	}
	command, known := commands[args[0]]
	if !known {
		fmt.Fprintf(os.Stderr, "platform: unknown command %q\n\n%s%s", args[0], usage, describeEnvironment())
		return 2
	}

	out := console.New(os.Stdout)
	s, err := readSettings(os.Getenv)
	if err == nil {
		err = command(ctx, s, out)
	}
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = errors.New("interrupted; what had been started goes on running, make up continues from here")
		}
		fmt.Fprintf(os.Stderr, "\nplatform %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

// Command flownode makes the host that it runs on what a cluster wants of it, and says or takes away what it has made. flowcluster calls
// it over SSH; it is of use by hand too.
//
// It owns /etc/flowplatform (what isn't wanted there goes), its units (flow-*) and the firewall's table flowplatform. Everything is
// compared first: an unchanged host is left alone, and a unit is restarted only when its files or its program have changed. What was done
// is written down after each unit, so that a run that was killed is finished by the next.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"flowplatform/scripts/internal/spec"
)

const usage = `Usage: flownode apply|check [--configs DIR] [--json] < node.json
       flownode remove --data keep|erase
       flownode jwks --tls-dir DIR

  apply   makes this host what the document on standard input says (spec.Node); again: changes only what differs
  check   says what apply would change, and how the host is; exit status 0: nothing to change, 3: something
  remove  stops and removes what apply has made; --data keep leaves the volumes, erase leaves nothing
  jwks    answers GET /.well-known/jwks.json on the loopback with what Nomad's server here says (unit flow-jwks)

  --configs DIR   the layers [` + spec.Bundles + `/current/configs]
  --json          check: as JSON
`

// errChanges is check's answer when apply would change something.
var errChanges = errors.New("something differs")

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	commands := map[string]func(context.Context, []string) error{"apply": apply, "check": check, "remove": remove, "jwks": jwks}
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Fprint(os.Stderr, usage)
		if len(args) == 0 {
			return 2
		}
		return 0
	}
	command, known := commands[args[0]]
	if !known {
		fmt.Fprintf(os.Stderr, "flownode: unknown command %q\n\n%s", args[0], usage)
		return 2
	}
	syscall.Umask(0o022)
	switch err := command(ctx, args[1:]); {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "flownode %s: %v\n\n%s", args[0], err, usage)
		return 2
	case errors.Is(err, errChanges):
		return 3
	case ctx.Err() != nil:
		fmt.Fprintf(os.Stderr, "flownode %s: interrupted; the next run goes on from here\n", args[0])
		return 1
	default:
		fmt.Fprintf(os.Stderr, "flownode %s: %v\n", args[0], err)
		return 1
	}
}

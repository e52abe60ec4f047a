// Command lab makes hosts on this machine: what a cluster is installed on, without any other machine. Package scripts/internal/lab says how.
//
//	go run ./scripts/lab up --dir /tmp/lab --hosts 3
//	go run ./scripts/lab list
//	go run ./scripts/lab ssh --dir /tmp/lab h1 hostname
//	go run ./scripts/lab kill --dir /tmp/lab h2
//	go run ./scripts/lab down --dir /tmp/lab
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"flowplatform/scripts/internal/lab"
)

const usage = `Usage: lab COMMAND --dir DIR [options]

  up       make hosts, or those that are missing: --hosts N | --names a,b,c  [--memory MB] [--bare] [--install scripts/install]
           [--number N, so that addresses are known before: 10.221.N.11 and on; --names a:11,b:31 chooses them]
           public SSH keys in $LAB_AUTHORIZED_KEYS, one a line, are accepted beside the lab's own
  list     what there is, with --dir of one lab: its hosts, and whether they run  [-o json]
  kill     HOST: as a power failure does
  remove   HOST: with its files
  start    HOST: with the files that it had
  ssh      HOST COMMAND…: as root, on a host
  outside  COMMAND…: on the hosts' network, from an address that is none of theirs
  down     take all of it away
`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, args)
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

type options struct {
	dir, names, install, output string
	hosts, memory, number       int
	bare                        bool
	rest                        []string
}

func parse(name string, args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("lab "+name, flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "", "the lab's directory")
	f.IntVar(&o.hosts, "hosts", 3, "how many hosts: h1, h2, …")
	f.StringVar(&o.names, "names", "", "their names instead, with commas")
	f.IntVar(&o.memory, "memory", 0, "MB that each host may use; 0: no limit")
	f.IntVar(&o.number, "number", 0, "the lab's number, from 1 to 200; 0: any that is free")
	f.BoolVar(&o.bare, "bare", false, "a plain Debian, without the packages of the platform's roles")
	f.StringVar(&o.install, "install", "scripts/install", "the installer, which knows those packages")
	f.StringVar(&o.output, "o", "", "json")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.dir == "" && name != "list" {
		return o, fmt.Errorf("lab %s: --dir: the directory of the lab", name)
	}
	if o.memory < 0 || o.memory > 0 && o.memory < 128 {
		return o, fmt.Errorf("lab: --memory %d: from 128, or 0 for no limit", o.memory)
	}
	o.rest = f.Args()
	return o, nil
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" {
		fmt.Print(usage)
		return nil
	}
	o, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}
	switch args[0] {
	case "up":
		return up(ctx, o)
	case "list":
		return list(o, os.Stdout)
	}
	l, err := lab.Open(o.dir)
	if errors.Is(err, fs.ErrNotExist) && (args[0] == "down" || args[0] == "remove") {
		fmt.Printf("there is no lab in %s\n", o.dir)
		return nil
	}
	if err != nil {
		return err
	}
	if args[0] != "down" && len(o.rest) == 0 {
		return fmt.Errorf("lab %s: say which host, or which command: see lab help", args[0])
	}
	switch args[0] {
	case "down":
		return l.Down(ctx)
	case "kill":
		return l.Kill(ctx, o.rest[0])
	case "remove":
		return l.Remove(ctx, o.rest[0])
	case "start":
		return l.Start(ctx, o.rest[0])
	case "ssh":
		if _, err := l.Host(o.rest[0]); err != nil {
			return err
		}
		return attached(l.SSH(ctx, o.rest[0], o.rest[1:]...))
	case "outside":
		return attached(l.Command(ctx, o.rest[0], o.rest[1:]...))
	}
	return fmt.Errorf("lab: no command %q: see lab help", args[0])
}

func attached(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func up(ctx context.Context, o options) error {
	names := strings.Split(o.names, ",")
	if o.names == "" {
		names = nil
		for i := range o.hosts {
			names = append(names, fmt.Sprintf("h%d", i+1))
		}
	}
	l, err := lab.Up(ctx, o.dir, lab.Options{
		Names: names, Number: o.number, Bare: o.bare, MemoryMB: o.memory, Install: o.install,
		Keys: strings.FieldsFunc(os.Getenv("LAB_AUTHORIZED_KEYS"), func(r rune) bool { return r == '\n' }),
		Say:  func(line string) { fmt.Println(line) },
	})
	if err != nil {
		return err
	}
	fmt.Printf("this machine is %s to them; key: %s\n", l.Machine(), l.Key())
	return nil
}

// shown is a host for programs.
type shown struct {
	lab.Host
	Running bool `json:"running"`
}

func list(o options, out io.Writer) error {
	labs, err := lab.List()
	if err != nil {
		return err
	}
	if o.dir != "" {
		l, err := lab.Open(o.dir)
		if err != nil {
			return err
		}
		labs = []*lab.Lab{l}
	}
	type entry struct {
		Dir     string  `json:"dir"`
		Bridge  string  `json:"bridge"`
		Machine string  `json:"machine"`
		Hosts   []shown `json:"hosts"`
	}
	entries := []entry{}
	for _, l := range labs {
		e := entry{Dir: l.Dir, Bridge: l.Bridge(), Machine: l.Machine(), Hosts: []shown{}}
		for _, h := range l.Hosts {
			e.Hosts = append(e.Hosts, shown{h, l.Running(h.Name)})
		}
		entries = append(entries, e)
	}
	if o.output == "json" {
		return json.NewEncoder(out).Encode(entries)
	}
	for _, e := range entries {
		fmt.Fprintf(out, "%s  %s  %s\n", e.Bridge, e.Machine, e.Dir)
		for _, h := range e.Hosts {
			fmt.Fprintf(out, "  %-20s %-15s running: %v\n", h.Name, h.Address, h.Running)
		}
	}
	return nil
}

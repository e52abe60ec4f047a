package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/spec"
)

// execute runs a command that finds Consul, Nomad and the platform in its environment, through tunnels that last as long as it does.
func execute(ctx context.Context, _ *console.Console, dir string, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return usageError("exec -- COMMAND…: which command? For example: exec -- nomad status")
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	env, stop, err := o.environment(ctx)
	if err != nil {
		return err
	}
	defer stop()
	// The release's own programs first: they are of the cluster's versions.
	path := o.bundle("bin") + string(os.PathListSeparator) + os.Getenv("PATH")
	program := args[0]
	if filepath.Base(program) == program {
		for _, d := range filepath.SplitList(path) {
			if info, err := os.Stat(filepath.Join(d, program)); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
				program = filepath.Join(d, program)
				break
			}
		}
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Env = append(append(os.Environ(), env...), "PATH="+path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() >= 0 {
		return exitStatus(ended.ExitCode())
	}
	return err
}

// environment opens tunnels and says in variables where they are. Secrets are in the environment of what is run for the operator, who may read them anyway, and
// in nobody's arguments.
func (o *operator) environment(ctx context.Context) (env []string, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	g, err := o.ground(o.tunnel)
	if err != nil {
		return nil, nil, err
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	scheme, door := o.door(short, g)
	servers := o.with(spec.Server)
	ports := map[string]int{}
	for name, connect := range map[string]func(context.Context) (net.Conn, error){
		"consul": failover(servers, spec.ConsulHTTPS, o.tunnel),
		"nomad":  failover(servers, spec.NomadHTTP, o.tunnel),
		"door":   door,
	} {
		number, s, err := o.listen(ctx, connect)
		if err != nil {
			return nil, nil, err
		}
		stops = append(stops, s)
		ports[name] = number
	}
	tokens, err := o.Keys.Tokens(access.ConsulManagement, access.NomadManagement)
	if err != nil {
		return nil, nil, err
	}
	if _, err := o.Keys.Operator(); err != nil {
		return nil, nil, err
	}
	l, err := o.readLogin()
	if err != nil {
		return nil, nil, err
	}
	ca, certificate, key := o.Keys.Path("ca.pem"), o.Keys.Path("operator.pem"), o.Keys.Path("operator-key.pem")
	at := func(name string) string { return "https://localhost:" + strconv.Itoa(ports[name]) }
	return []string{
		"CONSUL_HTTP_ADDR=" + at("consul"), "CONSUL_CACERT=" + ca, "CONSUL_CLIENT_CERT=" + certificate, "CONSUL_CLIENT_KEY=" + key,
		"CONSUL_HTTP_TOKEN=" + tokens[access.ConsulManagement],
		"NOMAD_ADDR=" + at("nomad"), "NOMAD_CACERT=" + ca, "NOMAD_CLIENT_CERT=" + certificate, "NOMAD_CLIENT_KEY=" + key,
		"NOMAD_TOKEN=" + tokens[access.NomadManagement],
		"FLOW_SERVER=" + scheme + strings.TrimPrefix(at("door"), "https"), "FLOW_CA_FILE=" + ca, "FLOW_TOKEN=" + l.Token,
		"FLOW_CLUSTER_DIR=" + o.Dir,
	}, stop, nil
}

// listen takes connections on the loopback and passes them on. Who else is on this machine may come too, and is asked for a certificate or a token at the end.
func (o *operator) listen(ctx context.Context, connect func(context.Context) (net.Conn, error)) (port int, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, fmt.Errorf("listen for tunnels: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go pass(ctx, c, connect)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, func() { cancel(); l.Close() }, nil
}

// pass copies both ways between a connection and one that it makes, until one side is done with it.
func pass(ctx context.Context, near net.Conn, connect func(context.Context) (net.Conn, error)) {
	defer near.Close()
	far, err := connect(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "flowcluster: tunnel: %v\n", err)
		return
	}
	defer far.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			io.Copy(way[0], way[1])
			if half, ok := way[0].(interface{ CloseWrite() error }); ok {
				half.CloseWrite()
			}
			done <- struct{}{}
		}()
	}
	for range 2 {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

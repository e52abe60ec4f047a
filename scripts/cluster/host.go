package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/programs"
	"flowplatform/scripts/internal/remote"
	"flowplatform/scripts/internal/spec"
)

// machineStarts is how long a new machine may take until it answers.
const machineStarts = 5 * time.Minute

// hostApply makes one host what it should be. Commands for several hosts may run side by side.
func hostApply(ctx context.Context, c *console.Console, dir string, args []string) error {
	name, err := oneName(args)
	if err != nil {
		return err
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	h, err := o.host(name)
	if err != nil {
		return err
	}
	unlock, err := o.lock("host-"+name, func() { c.Line("waiting for another flowcluster that works on " + name) })
	if err != nil {
		return err
	}
	defer unlock()
	return o.applyHost(ctx, c, h)
}

// applyHost brings the release to a host, installs, and lets flownode do the rest.
func (o *operator) applyHost(ctx context.Context, c *console.Console, h spec.Host) error {
	if err := o.remember(h); err != nil {
		return err
	}
	node, err := o.node(h)
	if err != nil {
		return err
	}
	network, err := o.reach()
	if err != nil {
		return err
	}
	host := network.Host(h.Name)
	if err := c.Part("Reach "+h.Name, func(p *console.Part) error {
		return host.Await(ctx, machineStarts, func(why string) { p.Doing("%s", why) })
	}); err != nil {
		return err
	}
	if err := c.Part("Release", func(p *console.Part) error { return o.push(ctx, p, host, h) }); err != nil {
		return err
	}
	if err := c.Part("Install", func(p *console.Part) error {
		return runOn(ctx, p, host, installScript(h), nil)
	}); err != nil {
		return err
	}
	if h.Has(spec.Server) {
		return o.applyServer(ctx, c, h, host, node)
	}
	return c.Part("Apply", func(p *console.Part) error { return runOn(ctx, p, host, spec.Programs+"/flownode apply", node) })
}

// node is what a host is told to be, with its secrets.
func (o *operator) node(h spec.Host) ([]byte, error) {
	unlock, err := o.Keys.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	ca, err := o.Keys.Authority()
	if err != nil {
		return nil, err
	}
	pair, err := o.Keys.Host(h)
	if err != nil {
		return nil, err
	}
	gossip, err := o.Keys.Gossip()
	if err != nil {
		return nil, err
	}
	agent, nomad := access.ConsulAgent(h.Name), access.ConsulNomad(h.Name)
	tokens, err := o.Keys.Tokens(agent, nomad)
	if err != nil {
		return nil, err
	}
	n := spec.Node{
		Cluster: o.Cluster.Name, Host: h, AllowedNetworks: o.Cluster.AllowedNetworks, FrontDoor: o.Cluster.FrontDoor,
		Secrets: spec.Secrets{
			CA: string(ca), Certificate: string(pair.Certificate), Key: string(pair.Key), CertificateSpan: pair.Until.UTC().Format(time.RFC3339),
			ConsulGossip: gossip.Consul, ConsulAgent: tokens[agent], ConsulNomad: tokens[nomad],
		},
	}
	if h.Has(spec.Server) {
		n.Secrets.NomadGossip = gossip.Nomad
	}
	for _, peer := range o.Cluster.Hosts {
		n.Peers = append(n.Peers, peer.PrivateAddress)
		if peer.Has(spec.Server) {
			n.Servers = append(n.Servers, peer.PrivateAddress)
		}
	}
	b, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("write down what %s is: %w", h.Name, err)
	}
	return b, nil
}

// receive takes a bundle from standard input, whole or not at all. A second one waits for the first, which may still run for somebody who was killed.
const receive = `set -eu
umask 022
dir=$1 sum=$2
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock -w 600 9
if [ ! -e "$dir/$sum/SHA256SUMS" ]; then
  rm -rf "$dir"/*.new
  mkdir "$dir/$sum.new"
  tar -xzf - -C "$dir/$sum.new" --no-same-owner
  cd "$dir/$sum.new" && sha256sum --check --strict --quiet SHA256SUMS && cd "$dir"
  mv "$dir/$sum.new" "$dir/$sum"
fi
ln -sfn "$sum" "$dir/current.new"
mv -T "$dir/current.new" "$dir/current"
ls -1t "$dir" | grep -E '^[0-9a-f]{64}$' | grep -v "^$sum$" | tail -n +2 | while read -r old; do rm -rf "$dir/$old"; done
`

// push brings the release to a host and makes it the current one there, with the programs where the job artifacts serves them.
func (o *operator) push(ctx context.Context, p *console.Part, host *remote.Host, h spec.Host) error {
	sum := o.Cluster.Bundle
	there, err := host.Output(ctx, fmt.Sprintf("[ ! -e %[1]s/%[2]s/SHA256SUMS ] || { echo kept; readlink %[1]s/current || true; }", spec.Bundles, sum))
	if err != nil {
		return err
	}
	script := remote.Script{Text: fmt.Sprintf("set -- %s %s\n%s", spec.Bundles, sum, receive)}
	did := "unchanged"
	switch there {
	case "kept\n" + sum:
		script.Text = ""
	case "":
		f, err := os.Open(o.bundle() + ".tar.gz")
		if err != nil {
			return fmt.Errorf("send the release: %w; flowcluster init --bundle FILE brings it back", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("send the release: %w", err)
		}
		script.Input = &counter{Reader: f, tell: func(n int64) { p.Doing("%d of %d MB sent", n>>20, info.Size()>>20) }}
		did = fmt.Sprintf("%d MB sent", info.Size()>>20)
	default:
		did = "the host had kept it"
	}
	if script.Text != "" {
		if err := host.Run(ctx, script); err != nil {
			return fmt.Errorf("send the release: %w", err)
		}
	}
	if h.IsClient() {
		if err := o.publish(ctx, host); err != nil {
			return err
		}
	}
	p.Done("%s", did)
	return nil
}

// publish puts the programs to where the job artifacts serves them: what stands at an address never changes. Ten of each are kept, to go back to.
func (o *operator) publish(ctx context.Context, host *remote.Host) error {
	versions, err := o.versions()
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "set -eu\numask 022\nfrom=%s/current/programs to=%s/artifacts\nmkdir -p %s/artifacts\n", spec.Bundles, spec.DataDir, spec.DataDir)
	for _, name := range programs.Released() {
		fmt.Fprintf(&b, `target=$to/%[1]s/%[2]s/%[1]s
if [ ! -e "$target" ]; then
  mkdir -p "$(dirname "$target")"
  cp "$from/%[1]s" "$target.new" && chmod 755 "$target.new" && mv "$target.new" "$target"
fi
touch "$to/%[1]s/%[2]s"
ls -1t "$to/%[1]s" | tail -n +11 | while read -r old; do rm -rf "$to/%[1]s/$old"; done
`, name, versions[name])
	}
	if err := host.Run(ctx, remote.Script{Text: b.String()}); err != nil {
		return fmt.Errorf("publish the programs: %w", err)
	}
	return nil
}

// versions are the sums of the release's programs, by name.
func (o *operator) versions() (map[string]string, error) {
	versions := map[string]string{}
	for _, name := range programs.Released() {
		sum, err := archive.Sum(o.bundle("programs", name))
		if err != nil {
			return nil, fmt.Errorf("the release: %w", err)
		}
		versions[name] = sum
	}
	return versions, nil
}

// installScript installs what the host's roles need, from the bundle alone where it has the packages.
func installScript(h spec.Host) string {
	var b strings.Builder
	current := spec.Bundles + "/current"
	fmt.Fprintf(&b, "set -eu\nexec 9>%s/.lock\nflock -w 900 9 || { echo 'another installation has been at work here for 15 minutes' >&2; exit 1; }\nset -- --from %s --bin-dir %s --quiet\n", spec.Bundles, current, spec.Programs)
	for _, role := range h.Roles {
		fmt.Fprintf(&b, "set -- \"$@\" --role %s\n", role)
	}
	fmt.Fprintf(&b, "if [ -d %[1]s/debs ]; then set -- \"$@\" --debs %[1]s/debs; fi\nexec %[1]s/install \"$@\"\n", current)
	return b.String()
}

// runOn runs a script on a host and shows what it says.
func runOn(ctx context.Context, p *console.Part, host *remote.Host, script string, input []byte) error {
	said := &lines{say: p.Say}
	err := host.Run(ctx, remote.Script{Text: script, Input: bytes.NewReader(input), Output: said, Errors: said})
	said.flush()
	return err
}

// hostCheck says what host apply would change; its exit status is 3 when there is something.
func hostCheck(ctx context.Context, c *console.Console, dir string, args []string) error {
	name, err := oneName(args)
	if err != nil {
		return err
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	h, err := o.host(name)
	if err != nil {
		return err
	}
	node, err := o.node(h)
	if err != nil {
		return err
	}
	network, err := o.reach()
	if err != nil {
		return err
	}
	host := network.Host(name)
	if err := host.Connect(ctx); err != nil {
		return err
	}
	differs := false
	current, err := host.Output(ctx, fmt.Sprintf("readlink %s/current || true", spec.Bundles))
	if err != nil {
		return err
	}
	if current != o.Cluster.Bundle {
		c.Line(fmt.Sprintf("release: %s, wanted %s", firstLetters(current), firstLetters(o.Cluster.Bundle)))
		differs = true
	}
	before := time.Now()
	clock, err := host.Output(ctx, "date +%s.%N")
	if err != nil {
		return err
	}
	c.Line(clockLine(clock, before, time.Now()))
	out := &lines{say: func(format string, args ...any) { c.Line(fmt.Sprintf(format, args...)) }}
	err = host.Run(ctx, remote.Script{
		Text: fmt.Sprintf("[ -x %[1]s/flownode ] || { echo 'nothing of the platform is here'; exit 3; }; exec %[1]s/flownode check", spec.Programs), Input: bytes.NewReader(node), Output: out,
	})
	out.flush()
	var ended *remote.RunError
	if errors.As(err, &ended) && ended.Status() == 3 {
		return exitStatus(3)
	}
	if err == nil && differs {
		return exitStatus(3)
	}
	return err
}

func firstLetters(sum string) string {
	if sum == "" {
		return "none"
	}
	return sum[:min(12, len(sum))]
}

// clockLine compares a host's clock with ours, as exactly as the way there and back lets us.
func clockLine(said string, before, after time.Time) string {
	var seconds, nanos int64
	if _, err := fmt.Sscanf(said, "%d.%d", &seconds, &nanos); err != nil {
		return "clock: not known: " + said
	}
	middle := before.Add(after.Sub(before) / 2)
	return fmt.Sprintf("clock: %+.1f s from this machine's (± %.1f s)", time.Unix(seconds, nanos).Sub(middle).Seconds(), after.Sub(before).Seconds()/2)
}

// counter tells how much was read through it.
type counter struct {
	io.Reader
	n    int64
	tell func(int64)
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

// lines passes on what is written to it line by line. Standard output and error may come at the same time.
type lines struct {
	mu   sync.Mutex
	say  func(format string, args ...any)
	rest []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(b), nil
		}
		l.rest = rest
		l.say("%s", strings.TrimRight(string(line), "\r "))
	}
}

func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.say("%s", string(l.rest))
		l.rest = nil
	}
}

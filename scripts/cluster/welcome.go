package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/keys"
	"flowplatform/scripts/internal/login"
	"flowplatform/scripts/internal/spec"
)

const loginFile = "login.json"

// savedLogin is keys/login.json: how people come in.
type savedLogin struct {
	Server     string `json:"server"`
	CAFile     string `json:"ca_file"`
	Email      string `json:"email"`
	Password   string `json:"password"`
	Token      string `json:"token"`
	BenchToken string `json:"bench_token"`
	Made       bool   `json:"made"` // the platform has this user; until then these are only drawn
}

// frontDoorPair is the certificate of the address that users know: every host of the role has it, under its own names.
func (o *operator) frontDoorPair() (keys.Pair, error) {
	unlock, err := o.Keys.Lock()
	if err != nil {
		return keys.Pair{}, err
	}
	defer unlock()
	names, addresses := []string{"localhost"}, []string{"127.0.0.1"}
	add := func(a string) {
		if _, err := netip.ParseAddr(a); err != nil {
			names = append(names, a)
		} else {
			addresses = append(addresses, a)
		}
	}
	for _, h := range o.with(spec.FrontDoor) {
		add(h.Name)
		add(h.Address)
		add(h.PrivateAddress)
	}
	slices.Sort(names)
	slices.Sort(addresses)
	return o.Keys.FrontDoor(slices.Compact(names), slices.Compact(addresses))
}

// metricsPair is how Prometheus shows itself to the agents.
func (o *operator) metricsPair() (ca []byte, pair keys.Pair, err error) {
	unlock, err := o.Keys.Lock()
	if err != nil {
		return nil, keys.Pair{}, err
	}
	defer unlock()
	if ca, err = o.Keys.Authority(); err != nil {
		return nil, keys.Pair{}, err
	}
	pair, err = o.Keys.Metrics()
	return ca, pair, err
}

const frontDoorVariable = "nomad/jobs/front-door"

// doorIsOurs says whether the front door shows a certificate of the cluster's own authority, or none yet: one that somebody else has put there is left alone.
func (o *operator) doorIsOurs(ctx context.Context, g ground.Ground) bool {
	v, err := g.ReadVariable(ctx, frontDoorVariable)
	return err != nil || v == nil || v.Items["certificate"] == "" || o.Keys.Signed([]byte(v.Items["certificate"]))
}

// door is where the operator's own programs come in through a tunnel: by the front door, or, when its certificate is another authority's and for another name than
// the tunnel's, by a gateway behind it.
func (o *operator) door(ctx context.Context, g ground.Ground) (scheme string, connect func(context.Context) (net.Conn, error)) {
	if o.doorIsOurs(ctx, g) {
		return "https", o.toFrontDoor
	}
	return "http", func(ctx context.Context) (net.Conn, error) {
		address, err := login.Gateway(ctx, g)
		if err != nil {
			return nil, err
		}
		return o.dialAddress(ctx, "tcp", address)
	}
}

// frontDoor is the address that users know.
func (o *operator) frontDoor() string {
	return "https://" + address(o.with(spec.FrontDoor)[0].Address, o.Cluster.FrontDoor.Port)
}

// readLogin returns what is written down about the first user; when there is nothing yet, it is drawn and written down.
func (o *operator) readLogin() (savedLogin, error) {
	var l savedLogin
	err := o.Keys.ReadJSON(loginFile, &l)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	before := l
	l.Server, l.CAFile = o.frontDoor(), o.Keys.Path("ca.pem")
	if l.Email == "" {
		l.Email = "admin@localhost"
	}
	if l.Password == "" {
		l.Password = rand.Text()
	}
	for _, token := range []*string{&l.Token, &l.BenchToken} {
		if *token == "" {
			b := make([]byte, 32)
			rand.Read(b)
			*token = "fp_" + base64.RawURLEncoding.EncodeToString(b)
		}
	}
	if l == before {
		return l, nil
	}
	return l, o.Keys.WriteJSON(loginFile, l)
}

// welcome makes the first user, proves that a flow runs, and says where everything is.
func (o *operator) welcome(ctx context.Context, c *console.Console, g ground.Ground) error {
	var l savedLogin
	if err := c.Part("First user", func(p *console.Part) error {
		var err error
		if l, err = o.readLogin(); err != nil {
			return err
		}
		first, err := login.FirstUser(ctx, g, login.User{Email: l.Email, Password: l.Password, Token: l.Token, BenchToken: l.BenchToken}, o.dialAddress)
		if err != nil {
			return err
		}
		p.Done("%s", either(first == nil, "is there", "made")+"; how to log in is in "+o.Keys.Path(loginFile))
		if l.Made {
			return nil
		}
		// With a user that isn't ours there is one who can log in; what is written down is then of no use, which the sample flow will say.
		l.Made = true
		return o.Keys.WriteJSON(loginFile, l)
	}); err != nil {
		return err
	}
	if err := c.Part("Sample flow", func(p *console.Part) error {
		scheme, connect := o.door(ctx, g)
		local, stop, err := o.listen(ctx, connect)
		if err != nil {
			return err
		}
		defer stop()
		env := []string{"FLOW_SERVER=" + scheme + "://localhost:" + strconv.Itoa(local), "FLOW_TOKEN=" + l.Token, "FLOW_CA_FILE=" + l.CAFile}
		result, err := login.Sample(ctx, login.Flowctl{Program: o.bundle("bin", "flowctl"), Dir: o.bundle()}, env, o.bundle("sample", "hello.json"))
		p.Done("%s", result)
		return err
	}); err != nil {
		return err
	}
	c.Line(fmt.Sprintf("\n Front door   %s", o.frontDoor()))
	c.Line(fmt.Sprintf(" Log in       flowctl login --server %s --ca-file %s  (email and password: %s)", o.frontDoor(), l.CAFile, o.Keys.Path(loginFile)))
	c.Line(fmt.Sprintf(" Look around  flowcluster exec --dir %s -- nomad status", o.Dir))
	return nil
}

// dialAddress reaches an address of the cluster's network, like a gateway's, by way of the host that has it.
func (o *operator) dialAddress(ctx context.Context, _, target string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", target, err)
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", target, err)
	}
	for _, h := range o.Cluster.Hosts {
		if h.PrivateAddress == host {
			return o.tunnel(ctx, h, number)
		}
	}
	return nil, fmt.Errorf("connect to %s: no host of the cluster has this address", target)
}

// toFrontDoor connects to the front door of the first host that lets us in.
func (o *operator) toFrontDoor(ctx context.Context) (net.Conn, error) {
	var wrong []error
	for _, h := range o.with(spec.FrontDoor) {
		c, err := o.tunnel(ctx, h, o.Cluster.FrontDoor.Port)
		if err == nil {
			return c, nil
		}
		wrong = append(wrong, err)
	}
	return nil, errors.Join(wrong...)
}

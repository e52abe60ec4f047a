package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/spec"
)

// dial connects to a port of a host, as the host sees it.
type dial func(ctx context.Context, h spec.Host, port int) (net.Conn, error)

// tunnel goes through SSH: nothing of the cluster but SSH and the front door has to be open to the operator.
func (o *operator) tunnel(ctx context.Context, h spec.Host, port int) (net.Conn, error) {
	network, err := o.reach()
	if err != nil {
		return nil, err
	}
	host := network.Host(h.Name)
	if err := host.Connect(ctx); err != nil {
		return nil, err
	}
	return host.Dial(ctx, address(h.PrivateAddress, port))
}

// ground are Consul and Nomad of the cluster, by way of whichever server answers, as their administrator.
func (o *operator) ground(through dial) (ground.Ground, error) {
	tokens, err := o.Keys.Tokens(access.ConsulManagement, access.NomadManagement)
	if err != nil {
		return ground.Ground{}, err
	}
	servers := o.with(spec.Server)
	consul, err := o.client("server."+spec.Datacenter+".consul", api.ConsulToken, tokens[access.ConsulManagement], failover(servers, spec.ConsulHTTPS, through))
	if err != nil {
		return ground.Ground{}, err
	}
	nomad, err := o.client("server.global.nomad", api.NomadToken, tokens[access.NomadManagement], failover(servers, spec.NomadHTTP, through))
	return ground.Ground{Consul: consul, Nomad: nomad}, err
}

// client talks to servers that bear a name in their certificates.
func (o *operator) client(name, header, token string, connect func(context.Context) (net.Conn, error)) (*api.Client, error) {
	config, err := o.Keys.ClientTLS(name)
	if err != nil {
		return nil, err
	}
	c := api.New("https://"+name, header, token)
	c.HTTP.Transport = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx) },
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     time.Minute,
		MaxConnsPerHost:     4,
	}
	return c, nil
}

// failover connects to the server that answered last, and to the next one when it doesn't. A tunnel is there before anybody has answered: so the first server
// that a client can't talk to is only left at the next connection.
func failover(servers []spec.Host, port int, through dial) func(context.Context) (net.Conn, error) {
	var mu sync.Mutex
	first := 0
	return func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		var wrong []error
		for i := range servers {
			h := servers[(first+i)%len(servers)]
			c, err := through(ctx, h, port)
			if err != nil {
				wrong = append(wrong, err)
				continue
			}
			first = (first + i) % len(servers)
			return &watched{Conn: c, failed: func() {
				mu.Lock()
				defer mu.Unlock()
				if servers[first].Name == h.Name {
					first = (first + 1) % len(servers)
				}
			}}, nil
		}
		return nil, fmt.Errorf("no server can be reached: %w", errors.Join(wrong...))
	}
}

// watched tells when a connection ends before anything came from it.
type watched struct {
	net.Conn
	failed func()
	heard  bool
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.heard = true
	}
	if err != nil && !w.heard {
		w.heard = true
		w.failed()
	}
	return n, err
}

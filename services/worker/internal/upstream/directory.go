// Package upstream is the worker's way to the orchestrators and the gateways: where they are (a list, or Consul's healthy instances), and their internal API,
// one try a call, with the next try going to another instance after a failure.
package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Directory knows the base URLs of a service's instances.
type Directory struct {
	consul  string // base URL of Consul's HTTP API; "": the list is fixed
	service string
	token   string
	http    *http.Client
	log     *slog.Logger

	mu    sync.Mutex
	urls  []string
	known chan struct{} // closed when the first address is known
}

// NewDirectory reads a variable like ORCHESTRATOR_URL: base URLs by comma, or consul://<service>, which is then asked of the agent at consulAddr. service is what
// the variable is about, for what errors and logs say.
func NewDirectory(variable, service, spec, consulAddr, consulToken string, log *slog.Logger) (*Directory, error) {
	d := &Directory{service: service, log: log, token: consulToken, known: make(chan struct{})}
	if name, ok := strings.CutPrefix(spec, "consul://"); ok {
		if name = strings.Trim(name, "/"); name == "" {
			return nil, fmt.Errorf("%s: %q names no service: write consul://%s", variable, spec, service)
		}
		base, err := consulBase(consulAddr)
		if err != nil {
			return nil, err
		}
		d.service, d.consul = name, base
		d.http = &http.Client{Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 2, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}}
		return d, nil
	}
	for _, raw := range strings.Split(spec, ",") {
		raw = strings.TrimRight(strings.TrimSpace(raw), "/")
		if raw == "" {
			continue
		}
		u, err := url.Parse(raw)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("%s: %q is not a URL like http://127.0.0.1:3003 (several by comma), nor consul://%s", variable, raw, service)
		}
		d.urls = append(d.urls, raw)
	}
	if len(d.urls) == 0 {
		return nil, fmt.Errorf("%s is empty: give base URLs by comma, or consul://%s", variable, service)
	}
	close(d.known)
	return d, nil
}

func consulBase(addr string) (string, error) {
	if addr == "" {
		addr = "127.0.0.1:8500"
	}
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("CONSUL_HTTP_ADDR: %q is not an address like 127.0.0.1:8500", addr)
	}
	return strings.TrimRight(addr, "/"), nil
}

// Known is closed when the first address is known: who calls before that only learns to wait longer.
func (d *Directory) Known() <-chan struct{} { return d.known }

// URLs gives what is known now; it may be empty before Consul has answered for the first time.
func (d *Directory) URLs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.urls
}

// Run follows Consul until ctx ends; for a fixed list it only waits. While Consul is away, or knows of no healthy instance, the last addresses stay.
func (d *Directory) Run(ctx context.Context) {
	if d.consul == "" {
		<-ctx.Done()
		return
	}
	var index uint64
	var failures int
	for ctx.Err() == nil {
		began := time.Now()
		urls, next, err := d.ask(ctx, index)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if failures%20 == 0 {
				d.log.Warn("Consul doesn't say where a service is: its last addresses stay", "of", d.service, "error", err, "addresses", len(d.URLs()))
			}
			failures++
			sleep(ctx, min(time.Duration(failures)*250*time.Millisecond, 5*time.Second))
			continue
		}
		failures = 0
		if next < index { // the index went back (a restore): begin anew
			next = 0
		}
		index = next
		d.set(urls)
		sleep(ctx, 100*time.Millisecond-time.Since(began)) // floor of the rate, should the index run ahead
	}
}

func (d *Directory) set(urls []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(urls) == 0 || slices.Equal(urls, d.urls) {
		return
	}
	if len(d.urls) == 0 {
		close(d.known)
	}
	d.urls = urls
	d.log.Info("addresses found", "of", d.service, "addresses", strings.Join(urls, ","))
}

// ask is one blocking query.
func (d *Directory) ask(ctx context.Context, index uint64) ([]string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 75*time.Second)
	defer cancel()
	q := url.Values{"passing": {"1"}}
	if index > 0 {
		q.Set("index", strconv.FormatUint(index, 10))
		q.Set("wait", "60s")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.consul+"/v1/health/service/"+url.PathEscape(d.service)+"?"+q.Encode(), nil)
	if err != nil {
		return nil, 0, fmt.Errorf("upstream.ask: %w", err)
	}
	if d.token != "" {
		req.Header.Set("X-Consul-Token", d.token)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("upstream.ask: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, 0, fmt.Errorf("upstream.ask: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("upstream.ask: Consul answers %s: %s (does CONSUL_HTTP_TOKEN give service:read?)", resp.Status, strings.TrimSpace(string(body[:min(len(body), 200)])))
	}
	var entries []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
		}
	}
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, 0, fmt.Errorf("upstream.ask: Consul's answer: %w", err)
	}
	var urls []string
	for _, e := range entries {
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		urls = append(urls, "http://"+net.JoinHostPort(host, strconv.Itoa(e.Service.Port)))
	}
	slices.Sort(urls)
	next, _ := strconv.ParseUint(resp.Header.Get("X-Consul-Index"), 10, 64)
	return slices.Compact(urls), next, nil
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/scripts/internal/spec"
)

// client is a user of the platform who knows the addresses of all front doors and takes another one when one doesn't answer.
type client struct {
	doors []string // https://address:port
	token string
	http  *http.Client
	next  atomic.Uint64
}

// newClient reads how to come in from the operator's directory.
func (p *play) newClient() (*client, error) {
	var login struct {
		BenchToken string `json:"bench_token"` // of the two tokens the one without a limit on its rate
	}
	content, err := os.ReadFile(filepath.Join(p.operator, "keys/login.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, &login); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(p.operator, "keys/ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("keys/ca.pem holds no certificate")
	}
	c := &client{token: login.BenchToken, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 64, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
	}}}
	for _, h := range p.hosts {
		if h.Has(spec.FrontDoor) {
			c.doors = append(c.doors, fmt.Sprintf("https://%s:%d", h.Address, doorPort))
		}
	}
	return c, nil
}

// statusError is an answer that says no.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.status, shortened(e.body)) }

// once asks one front door.
func (c *client) once(ctx context.Context, method, path, key string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	door := c.doors[int(c.next.Add(1))%len(c.doors)]
	req, err := http.NewRequestWithContext(ctx, method, door+"/api/v1"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return &statusError{answer.StatusCode, string(content)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(content, out)
}

// call asks until it is answered, at most for the time that patience lasts, and says how often. What the platform says no to isn't asked again.
func (c *client) call(ctx context.Context, method, path, key string, in, out any, patience time.Duration) (asked int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		asked++
		err = c.once(ctx, method, path, key, in, out)
		var no *statusError
		if err == nil || errors.As(err, &no) && no.status < 500 && no.status != http.StatusTooManyRequests {
			return asked, err
		}
		select {
		case <-ctx.Done():
			return asked, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// outside is a server that flows call: it counts the calls of each step of each execution.
type outside struct {
	url    string
	server *http.Server
	mu     sync.Mutex
	calls  map[string]int // by Idempotency-Key
}

func newOutside(address string) (*outside, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("the server that flows call: %w", err)
	}
	o := &outside{url: "http://" + l.Addr().String(), calls: map[string]int{}}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: 10 * time.Second}
	go o.server.Serve(l)
	return o, nil
}

func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.calls[r.Header.Get("Idempotency-Key")]++
	o.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintln(w, `{"ok":true}`)
}

// repeated counts the steps that have called more than once, and all of them.
func (o *outside) repeated() (repeated, all int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.calls {
		if n > 1 {
			repeated++
		}
	}
	return repeated, len(o.calls)
}

// applyFlow makes the flow of a load, which is named after what happens meanwhile: one call outside.
func (c *client) applyFlow(ctx context.Context, what, url string) (id string, err error) {
	document := map[string]any{
		"name": "Cluster lab: " + what,
		"nodes": []any{
			map[string]any{"id": "start", "type": "trigger.manual"},
			map[string]any{"id": "call", "type": "http.request", "config": map[string]any{"method": "POST", "url": url + "/call", "body": map[string]any{"n": "{{ input.n }}"}}},
			map[string]any{"id": "result", "type": "data.set", "config": map[string]any{"values": map[string]any{"n": "{{ input.n }}"}}},
		},
		"edges": []any{map[string]any{"from": "start", "to": "call"}, map[string]any{"from": "call", "to": "result"}},
	}
	var made struct{ ID string }
	_, err = c.call(ctx, http.MethodPost, "/flows", "", document, &made, time.Minute)
	return made.ID, err
}

// load starts executions at a steady rate until stopped.
type load struct {
	client *client
	flow   string
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu       sync.Mutex
	requests int
	again    int
	failed   []error
	accepted map[string]time.Time // by execution
}

// perSecond is little: what is counted is what a death costs, on a machine that all hosts share.
const perSecond = 10

func startLoad(ctx context.Context, c *client, flow string) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{client: c, flow: flow, stop: stop, accepted: map[string]time.Time{}}
	l.ended.Go(func() {
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			l.ended.Go(func() { l.one(context.WithoutCancel(ctx), n) })
		}
	})
	return l
}

// patience is how long a request is asked again: as long as a front door, a gateway or a leader may take to be another.
const patience = 30 * time.Second

func (l *load) one(ctx context.Context, n int) {
	var made struct{ ID string }
	asked, err := l.client.call(ctx, http.MethodPost, "/flows/"+l.flow+"/executions", fmt.Sprintf("lab-%p-%d", l, n), map[string]any{"input": map[string]any{"n": n}}, &made, patience)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if asked > 1 {
		l.again++
	}
	if err != nil {
		l.failed = append(l.failed, err)
		return
	}
	l.accepted[made.ID] = time.Now()
}

func (l *load) end() {
	l.stop()
	l.ended.Wait()
}

// count looks what became of every execution, and says what it cost that a host died at a time.
func (l *load) count(ctx context.Context, killed time.Time, k *kill) error {
	k.Requests, k.Again, k.Failed, k.Accepted = l.requests, l.again, len(l.failed), len(l.accepted)
	last := killed
	for _, at := range inOrder(l.accepted) {
		if at.Before(killed) {
			last = at
			continue
		}
		k.GapMax = max(k.GapMax, at.Sub(last).Seconds())
		last = at
	}
	for id, accepted := range l.accepted {
		var e struct {
			Status                string
			CreatedAt, FinishedAt time.Time
		}
		// Whatever was accepted ends: who hasn't after two minutes is lost.
		deadline := time.Now().Add(2 * time.Minute)
		for {
			if _, err := l.client.call(ctx, http.MethodGet, "/executions/"+id, "", nil, &e, time.Minute); err != nil {
				return fmt.Errorf("execution %s: %w", id, err)
			}
			if !e.FinishedAt.IsZero() || time.Now().After(deadline) {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(250 * time.Millisecond):
			}
		}
		if e.Status != "succeeded" {
			k.Lost++
			continue
		}
		k.SlowestS = max(k.SlowestS, e.FinishedAt.Sub(e.CreatedAt).Seconds())
		if accepted.Before(killed) {
			k.Settled = max(k.Settled, e.FinishedAt.Sub(killed).Seconds())
		}
	}
	return nil
}

// inOrder are the times of a map, the earliest first.
func inOrder(times map[string]time.Time) []time.Time {
	return slices.SortedFunc(maps.Values(times), time.Time.Compare)
}

package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/protocol"
)

// Client calls the internal API of the orchestrators, or of the gateways: whose addresses its Directory knows. A call is one try at one instance; the caller decides whether there is another.
// Sessions and claims use a Client each, so that neither waits behind the other's connections.
type Client struct {
	dir   *Directory
	token string
	http  *http.Client
	next  atomic.Uint32 // instance of the next call, moved by every failure
}

// NewClient makes a client with connections of its own.
func NewClient(dir *Directory, token string) *Client {
	c := &Client{dir: dir, token: token, http: &http.Client{Transport: &http.Transport{
		Proxy:               nil, // never through a proxy: these are our own hosts
		DialContext:         (&net.Dialer{Timeout: time.Second, KeepAlive: 10 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     60 * time.Second,
	}}}
	c.next.Store(rand.Uint32N(1 << 16)) // workers spread over the instances
	return c
}

// Open opens a session.
func (c *Client) Open(ctx context.Context, req protocol.OpenSessionRequest) (protocol.SessionResponse, error) {
	var resp protocol.SessionResponse
	err := c.post(ctx, "sessions/open", req, &resp)
	return resp, err
}

// Renew renews it.
func (c *Client) Renew(ctx context.Context, req protocol.RenewRequest) (protocol.SessionResponse, error) {
	var resp protocol.SessionResponse
	err := c.post(ctx, "sessions/renew", req, &resp)
	return resp, err
}

// End ends sessions.
func (c *Client) End(ctx context.Context, req protocol.EndSessionsRequest) error {
	return c.post(ctx, "sessions/end", req, nil)
}

// Claims asks for attempts; the answers come in the order of the claims.
func (c *Client) Claims(ctx context.Context, claims []protocol.Claim) ([]protocol.Answer, error) {
	var resp protocol.ClaimsResponse
	if err := c.post(ctx, "claims", protocol.ClaimsRequest{Claims: claims}, &resp); err != nil {
		return nil, err
	}
	if len(resp.Answers) != len(claims) {
		return nil, fmt.Errorf("upstream.Claims: %d answers to %d claims: is the orchestrator of another version?", len(resp.Answers), len(claims))
	}
	return resp.Answers, nil
}

// Call starts another flow for a step.
func (c *Client) Call(ctx context.Context, req protocol.CallRequest) (protocol.CallAnswer, error) {
	var answer protocol.CallAnswer
	err := c.post(ctx, "calls", req, &answer)
	return answer, err
}

// post makes one try. Whatever isn't a 2xx with a readable body is "no answer", and moves the client on to another instance.
func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("upstream %s: %w", path, err)
	}
	return c.try(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, body, func(_ http.Header, answer []byte) error {
		if out == nil {
			return nil
		}
		return json.Unmarshal(answer, out)
	})
}

// try makes one call at one instance; read takes the answer.
func (c *Client) try(ctx context.Context, method, path string, header http.Header, body []byte, read func(http.Header, []byte) error) (err error) {
	n := c.next.Load()
	defer func() {
		if err != nil {
			c.next.CompareAndSwap(n, n+1) // of those that fail together only the first moves on
		}
	}()
	urls := c.dir.URLs()
	if len(urls) == 0 {
		return errors.New("upstream: no instance is known yet: Consul names no healthy one of the service " + c.dir.service)
	}
	base := urls[int(n)%len(urls)]
	req, err := http.NewRequestWithContext(ctx, method, base+"/internal/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("upstream %s: %w", path, err)
	}
	maps.Copy(req.Header, header)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("upstream %s: %w", path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("upstream %s: %s: %w", path, base, err)
	}
	if resp.StatusCode/100 != 2 {
		e := &StatusError{Path: path, Base: base, Status: resp.StatusCode}
		var problem struct {
			Detail string `json:"detail"`
		}
		if e.Detail = strings.TrimSpace(string(answer[:min(len(answer), 200)])); json.Unmarshal(answer, &problem) == nil && problem.Detail != "" {
			e.Detail = problem.Detail
		}
		return e
	}
	if err := read(resp.Header, answer); err != nil {
		return fmt.Errorf("upstream %s: the answer of %s can't be read: %w", path, base, err)
	}
	return nil
}

// StatusError is an answer that isn't a 2xx.
type StatusError struct {
	Path, Base string
	Status     int
	Detail     string
}

func (e *StatusError) Error() string {
	hint := ""
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		hint = " (is INTERNAL_TOKEN or CREDENTIALS_TOKEN the same there?)"
	}
	return fmt.Sprintf("upstream %s: %s answers %d %s%s: %s", e.Path, e.Base, e.Status, http.StatusText(e.Status), hint, e.Detail)
}

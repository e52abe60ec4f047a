package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"syscall"
	"time"
)

// client starts executions, as a user would.
type client struct {
	base, token string
	keys        bool // each start has an Idempotency-Key
	http        *http.Client
}

func newClient(server, token string) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}
	return &client{base: server + "/api/v1", token: token, http: &http.Client{Timeout: 15 * time.Second, Transport: transport}}
}

// request is one start of an execution: what was asked, and what came of it.
type request struct {
	Sent  time.Time
	Ended time.Time
	ID    string // "": not accepted, or nobody knows
	Fail  string // in a few words, so that equal ones count together; "": accepted
	Why   string // the failure in full
	Again int    // how often it was sent once more, on another connection
}

// post sends a document and gives the id in the answer.
func (c *client) post(ctx context.Context, path string, body []byte) (string, error) {
	id, _, err := c.send(ctx, path, body, "")
	return id, err
}

// send is post, with an Idempotency-Key unless that is empty: net/http then sends a request again by itself, when its connection was closed before a byte of
// an answer came. Again says how often it did.
func (c *client) send(ctx context.Context, path string, body []byte, key string) (id string, again int, err error) {
	sent := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent++ }})
	id, err = c.exchange(ctx, path, body, key)
	return id, max(0, sent-1), err
}

func (c *client) exchange(ctx context.Context, path string, body []byte, key string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if res.StatusCode/100 != 2 {
		return "", &refusal{res.StatusCode, string(b)}
	}
	var out struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(b, &out); err != nil || out.ID == "" {
		return "", fmt.Errorf("an answer without an id: %.300q", b)
	}
	return out.ID, nil
}

// refusal is an answer that isn't 2xx.
type refusal struct {
	status int
	body   string
}

func (r *refusal) Error() string { return fmt.Sprintf("HTTP %d: %.300s", r.status, r.body) }

// failKind names a failure as a client sees it. Ports and addresses are left out: they would make each one different.
func failKind(err error) string {
	var r *refusal
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &r):
		return fmt.Sprintf("HTTP %d", r.status)
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection lost"
	}
	return "no answer"
}

// steady sends starts at a fixed rate until the context ends, each at its own due time whatever became of those before it, and gives all of them.
// A request in flight is seen through: its answer counts. It never tries again by itself: what clients see is what is counted.
func (c *client) steady(ctx context.Context, flow string, rate float64) []request {
	var mu sync.Mutex
	var all []request
	var wg sync.WaitGroup
	begun := time.Now()
	for n := 0; ; n++ {
		due := begun.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		if !rest(ctx, time.Until(due)) {
			break
		}
		wg.Go(func() {
			r := request{Sent: time.Now()}
			key := ""
			if c.keys {
				key = fmt.Sprintf("drill-%s-%d", flow, n)
			}
			id, again, err := c.send(context.WithoutCancel(ctx), "/flows/"+flow+"/executions", fmt.Appendf(nil, `{"input":{"i":%d}}`, n), key)
			r.ID, r.Fail, r.Ended, r.Again = id, failKind(err), time.Now(), again
			if err != nil {
				r.Why = err.Error()
			}
			mu.Lock()
			all = append(all, r)
			mu.Unlock()
		})
	}
	wg.Wait()
	return all
}

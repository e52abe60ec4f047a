// Package client talks to the platform's HTTP API for flowctl, and keeps its login.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoLogin says that neither a login, nor flags, nor the environment name a server and a token.
var ErrNoLogin = errors.New("not logged in")

// Login is what is remembered on this machine.
type Login struct {
	Server string `json:"server"`
	Token  string `json:"token"`
	CA     string `json:"ca,omitempty"` // PEM of the authority whose certificates the server shows; none: the system's
}

// Path of the file that keeps the login: $XDG_CONFIG_HOME/flowctl/config.json.
func Path() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no place for the login: %w (set HOME or XDG_CONFIG_HOME)", err)
	}
	return filepath.Join(dir, "flowctl", "config.json"), nil
}

// Save remembers a login, readable by its owner only.
func Save(l Login) error {
	path, err := Path()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	return os.Rename(tmp, path)
}

// Forget removes the login; there may be none.
func Forget() error {
	path, err := Path()
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the login: %w", err)
	}
	return nil
}

func saved() (Login, error) {
	path, err := Path()
	if err != nil {
		return Login{}, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, nil
	}
	if err != nil {
		return Login{}, fmt.Errorf("read the login: %w", err)
	}
	var l Login
	if err := json.Unmarshal(b, &l); err != nil {
		return Login{}, fmt.Errorf("read the login: %s is damaged: %w (log in again)", path, err)
	}
	return l, nil
}

// Client is the API of one server for one user.
type Client struct {
	Server string
	Token  string
	CA     string      // PEM, see Trust
	TLS    *tls.Config // for connections that aren't made here; nil: the defaults
	http   *http.Client
}

// New takes server and token from the arguments, or from the saved login where they are empty.
func New(server, token string) (*Client, error) {
	authority := ""
	if server == "" || token == "" {
		l, err := saved()
		if err != nil {
			return nil, err
		}
		if server == "" || strings.TrimRight(server, "/") == l.Server {
			if server == "" {
				server = l.Server
			}
			if token == "" {
				token = l.Token
			}
			authority = l.CA
		}
	}
	if server == "" || token == "" {
		return nil, ErrNoLogin
	}
	c, err := Anonymous(server, token)
	if err != nil {
		return nil, err
	}
	if err := c.Trust(authority); err != nil {
		return nil, fmt.Errorf("the saved authority: %w (log in again)", err)
	}
	return c, nil
}

// Anonymous makes a client without looking for a saved login.
func Anonymous(server, token string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not a server's address: it must look like http://localhost:8080", server)
	}
	return &Client{Server: strings.TrimRight(server, "/"), Token: token, http: &http.Client{Timeout: timeout}}, nil
}

// Problem is an error of the API (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
		Pointer  string `json:"pointer"`
	} `json:"errors"`
}

func (p *Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", p.Status, p.Title)
	if p.Detail != "" {
		fmt.Fprintf(&b, ": %s", p.Detail)
	}
	for _, e := range p.Errors {
		at := e.Pointer
		if at == "" {
			at = e.Location
		}
		fmt.Fprintf(&b, "\n  %s: %s", at, e.Message)
	}
	return b.String()
}

// takesKey says where a request that comes twice starts something once. With a key, net/http sends it again by itself when the connection turns out to be
// closed: the front door closes idle ones whenever its list of gateways changes.
func takesKey(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	return strings.HasPrefix(path, "/flows/") && (strings.HasSuffix(path, "/executions") || strings.HasSuffix(path, "/executions/batch"))
}

// Do sends a request to /api/v1 and decodes the answer into out (nil: the body is not needed). Errors of the API are *Problem.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) (int, error) {
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		in = bytes.NewReader(b)
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			return 0, err
		}
		in = bytes.NewReader(enc)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Server+"/api/v1"+path, in)
	if err != nil {
		return 0, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if method == http.MethodPost && takesKey(path) {
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, unreachable(c.Server, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return res.StatusCode, fmt.Errorf("%s %s: the answer broke off: %w", method, path, err)
	}
	if res.StatusCode >= 400 {
		p := &Problem{Status: res.StatusCode, Title: http.StatusText(res.StatusCode)}
		_ = json.Unmarshal(data, p) // whatever it is, the status is right
		return res.StatusCode, p
	}
	if out != nil && len(data) > 0 {
		if err := json.Unmarshal(data, out); err != nil {
			return res.StatusCode, fmt.Errorf("%s %s: the answer is not what this flowctl knows: %w", method, path, err)
		}
	}
	return res.StatusCode, nil
}

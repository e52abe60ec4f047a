package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds what is read of one answer.
const maxAnswer = 32 << 20

// Endpoint is the HTTP API of Consul or Nomad, with the operator's token and certificate.
type Endpoint struct {
	Name   string // Consul or Nomad
	URL    string
	Given  bool // the environment names it; otherwise it is where it usually is on one's own machine
	header string
	token  string
	tls    *tls.Config // with the client's certificate, if there is one
}

// Consul takes the variables that Consul's own command line takes.
func Consul(getenv func(string) string) (*Endpoint, error) {
	address := getenv("CONSUL_HTTP_ADDR")
	e := &Endpoint{Name: "Consul", Given: address != "", header: "X-Consul-Token", token: getenv("CONSUL_HTTP_TOKEN")}
	if address == "" {
		address = "http://127.0.0.1:8500"
	}
	if !strings.Contains(address, "://") {
		scheme := "http"
		if on := getenv("CONSUL_HTTP_SSL"); on == "1" || strings.EqualFold(on, "true") {
			scheme = "https"
		}
		address = scheme + "://" + address
	}
	return e, e.open("CONSUL_HTTP_ADDR", address, getenv("CONSUL_CACERT"), getenv("CONSUL_CLIENT_CERT"), getenv("CONSUL_CLIENT_KEY"), getenv("CONSUL_TLS_SERVER_NAME"), getenv("CONSUL_HTTP_TOKEN_FILE"))
}

// Nomad takes the variables that Nomad's own command line takes.
func Nomad(getenv func(string) string) (*Endpoint, error) {
	address := getenv("NOMAD_ADDR")
	e := &Endpoint{Name: "Nomad", Given: address != "", header: "X-Nomad-Token", token: getenv("NOMAD_TOKEN")}
	if address == "" {
		address = "http://127.0.0.1:4646"
	}
	return e, e.open("NOMAD_ADDR", address, getenv("NOMAD_CACERT"), getenv("NOMAD_CLIENT_CERT"), getenv("NOMAD_CLIENT_KEY"), getenv("NOMAD_TLS_SERVER_NAME"), "")
}

func (e *Endpoint) open(variable, address, ca, cert, key, serverName, tokenFile string) error {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("%s is %q: it must look like https://127.0.0.1:8501", variable, address)
	}
	e.URL = u.Scheme + "://" + u.Host
	if tokenFile != "" && e.token == "" {
		b, err := os.ReadFile(tokenFile)
		if err != nil {
			return fmt.Errorf("%s's token: %w", e.Name, err)
		}
		e.token = strings.TrimSpace(string(b))
	}
	e.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("%s's certificate authority: %w", e.Name, err)
		}
		e.tls.RootCAs = x509.NewCertPool()
		if !e.tls.RootCAs.AppendCertsFromPEM(b) {
			return fmt.Errorf("%s's certificate authority: %s holds no certificate", e.Name, ca)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("the certificate to show to %s: %w", e.Name, err)
		}
		e.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

func (e *Endpoint) secure() bool { return strings.HasPrefix(e.URL, "https:") }

// request is one call; what isn't said is as the operator does it.
type request struct {
	method, path string
	body         any
	token        *string // nil: the operator's
	plain        bool    // HTTP where HTTPS is spoken
	bare         bool    // without a client certificate
}

// do sends it and gives the status and the body. Each call has a connection of its own, so that a certificate is asked for each time.
func (e *Endpoint) do(ctx context.Context, q request) (int, []byte, *tls.ConnectionState, error) {
	base, config := e.URL, e.tls.Clone()
	if q.plain {
		base = strings.Replace(base, "https:", "http:", 1)
	}
	if q.bare {
		config.Certificates = nil
	}
	var body io.Reader
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return 0, nil, nil, err
		}
		body = strings.NewReader(string(b))
	}
	method := q.method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, base+q.path, body)
	if err != nil {
		return 0, nil, nil, err
	}
	token := e.token
	if q.token != nil {
		token = *q.token
	}
	if token != "" {
		req.Header.Set(e.header, token)
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	res, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return res.StatusCode, nil, res.TLS, fmt.Errorf("%s %s: the answer broke off: %w", method, q.path, err)
	}
	return res.StatusCode, b, res.TLS, nil
}

// get reads a path as the operator.
func (e *Endpoint) get(ctx context.Context, path string, out any) error {
	return e.call(ctx, http.MethodGet, path, nil, out, http.StatusOK)
}

// call does something as the operator. also are statuses beside 200 whose answers are taken, too.
func (e *Endpoint) call(ctx context.Context, method, path string, in, out any, also ...int) error {
	status, b, _, err := e.do(ctx, request{method: method, path: path, body: in})
	if err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	good := status/100 == 2
	for _, s := range also {
		good = good || s == status
	}
	if !good {
		return fmt.Errorf("%s: %s %s: %d %s", e.Name, method, withoutQuery(path), status, strings.TrimSpace(string(b[:min(len(b), 200)])))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s: %s: the answer is not what this flowctl knows: %w", e.Name, withoutQuery(path), err)
	}
	return nil
}

func withoutQuery(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return path
}

// unreachable says that nobody listens there, or that the way there is shut.
func unreachable(err error) bool {
	var dns *net.DNSError
	var timeout net.Error
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &dns) || errors.As(err, &timeout) && timeout.Timeout()
}

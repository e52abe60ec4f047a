// Package load puts load on a platform through its front door and measures what comes back, from outside.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// conn is one HTTP/1.1 connection that sends prepared requests and reads answers. The generator shares its two cores with what it measures, and
// net/http's client costs more CPU for a request than the platform's gateway does; this one costs a write, a read and a scan.
type conn struct {
	address string
	tls     *tls.Config // nil: plain
	c       net.Conn
	r       *bufio.Reader
}

func (c *conn) dial(ctx context.Context) error {
	if c.c != nil {
		return nil
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	dial := d.DialContext
	if c.tls != nil {
		dial = (&tls.Dialer{NetDialer: &d, Config: c.tls}).DialContext
	}
	nc, err := dial(ctx, "tcp", c.address)
	if err != nil {
		return err
	}
	c.c, c.r = nc, bufio.NewReaderSize(nc, 8<<10)
	return nil
}

func (c *conn) close() {
	if c.c != nil {
		c.c.Close()
		c.c = nil
	}
}

// do sends one prepared request and gives the status and the body. After an error the connection is made anew at the next call.
func (c *conn) do(ctx context.Context, request []byte, timeout time.Duration) (int, []byte, error) {
	if err := c.dial(ctx); err != nil {
		return 0, nil, err
	}
	status, body, keep, err := c.exchange(request, timeout)
	if err != nil || !keep {
		c.close()
	}
	return status, body, err
}

func (c *conn) exchange(request []byte, timeout time.Duration) (status int, body []byte, keep bool, err error) {
	if err = c.c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return
	}
	if _, err = c.c.Write(request); err != nil {
		return
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return
	}
	if len(line) < 12 {
		return 0, nil, false, fmt.Errorf("no HTTP answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return
	}
	length, keep := -1, true
	chunked := false
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return
		}
		h := strings.TrimRight(string(line), "\r\n")
		if h == "" {
			break
		}
		name, value, _ := strings.Cut(h, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Length"):
			if length, err = strconv.Atoi(value); err != nil {
				return
			}
		case strings.EqualFold(name, "Transfer-Encoding"):
			chunked = strings.EqualFold(value, "chunked")
		case strings.EqualFold(name, "Connection"):
			keep = !strings.EqualFold(value, "close")
		}
	}
	switch {
	case chunked:
		body, err = readChunks(c.r)
	case length >= 0:
		body = make([]byte, length)
		_, err = io.ReadFull(c.r, body)
	default:
		keep = false
		body, err = io.ReadAll(io.LimitReader(c.r, 1<<20))
	}
	return
}

func readChunks(r *bufio.Reader) ([]byte, error) {
	var body []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
		if err != nil {
			return nil, fmt.Errorf("bad chunk: %w", err)
		}
		part := make([]byte, n+2)
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, err
		}
		if n == 0 {
			return body, nil
		}
		body = append(body, part[:n]...)
	}
}

// target is where requests go.
type target struct {
	address string // host:port
	host    string
	token   string
	tls     *tls.Config // nil: plain
}

var errScheme = errors.New("the load generator speaks HTTP and HTTPS")

// newTarget takes what config says about whom to believe; nil is what the system says.
func newTarget(server, token string, config *tls.Config) (target, error) {
	u, err := url.Parse(server)
	if err != nil {
		return target{}, err
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" {
		return target{}, errScheme
	}
	t := target{address: u.Host, host: u.Host, token: token}
	if u.Port() == "" {
		t.address = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Scheme == "https" {
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if config != nil {
			t.tls = config.Clone()
		}
		t.tls.NextProtos = []string{"http/1.1"}
	}
	return t, nil
}

// post prepares the bytes of a POST.
func (t target) post(path, body string) []byte {
	return fmt.Appendf(nil, "POST /api/v1%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, t.host, t.token, len(body), body)
}

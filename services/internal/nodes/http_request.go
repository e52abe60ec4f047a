package nodes

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

const (
	maxRedirects   = 5
	maxHeaderBytes = 64 << 10
)

func httpRequest(o HTTPOptions) node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "http.request", Version: 1, Kind: flow.KindEffect, Category: "integration", Timeout: 30 * time.Second,
			Credentials: []string{credential.HTTPBasic, credential.HTTPBearer, credential.HTTPHeader},
			Title:       "HTTP request", Description: "Calls a URL. Sends Idempotency-Key, the same over tries and recoveries, and X-Flow-Attempt. A status of 400 and above fails the step, unless failOn says otherwise.",
			Config: `{"type": "object", "required": ["url"], "additionalProperties": false,
				"properties": {
					"method": {"enum": ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], "default": "GET", "title": "Method"},
					"url": {"type": "string", "minLength": 1, "title": "URL", "description": "http or https"},
					"query": {"type": "object", "title": "Query", "description": "added to the URL's; a list gives a name several times"},
					"headers": {"type": "object", "title": "Headers"},
					"body": {"title": "Body", "description": "a text is sent as it is, anything else as JSON"},
					"credential": {"type": "string", "minLength": 1, "maxLength": 100, "title": "Credential", "description": "name or id of a credential; it wins over a header of the same name"},
					"failOn": {"type": ["string", "array"], "title": "Fail on", "description": "\"never\", or a list of statuses and classes like [404, \"5xx\"]; otherwise 400 and above", "items": {"type": ["integer", "string"]}}}}`,
			Output: `{"type": "object", "required": ["status", "headers", "body"],
				"properties": {"status": {"type": "integer"}, "headers": {"type": "object", "description": "names in lower case; several of a name are joined by a comma"},
					"body": {"description": "JSON when the server says so, else a text; bytes that are no text as {\"base64\": …}"}}}`,
			Examples: []node.Example{
				{Title: "Read an order", Config: map[string]any{"url": "https://shop.example/orders/{{ input.orderId }}"}, Input: map[string]any{"orderId": 7}},
				{Title: "Create one", Config: map[string]any{"method": "POST", "url": "https://shop.example/orders", "headers": map[string]any{"X-Source": "flow"}, "body": map[string]any{"item": "{{ input.item }}"}, "failOn": []any{"5xx"}}, Input: map[string]any{"item": "pen"}},
			},
		},
		Executor: newHTTP(o, net.DefaultResolver),
	}
}

type httpExecutor struct {
	client *http.Client
}

func newHTTP(o HTTPOptions, names resolver) *httpExecutor {
	transport := &http.Transport{
		DialContext:       o.dialer(names),
		ForceAttemptHTTP2: true, MaxIdleConns: 1024, MaxIdleConnsPerHost: 256, IdleConnTimeout: 60 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes, DisableCompression: true, ExpectContinueTimeout: time.Second,
	}
	return &httpExecutor{client: &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
			return fmt.Errorf("redirected to a %s URL", req.URL.Scheme)
		}
		if led(req, via) { // what was meant for one host is not for another
			own, _ := req.Context().Value(secretHeader{}).(string)
			for name := range req.Header {
				if sensitive(name) || name == own {
					req.Header.Del(name)
				}
			}
		}
		return nil
	}}}
}

func sensitive(header string) bool {
	h := strings.ToLower(header)
	return h == "authorization" || h == "cookie" || h == "proxy-authorization" || strings.Contains(h, "token") || strings.Contains(h, "key") && h != "idempotency-key" || strings.Contains(h, "secret")
}

func (x *httpExecutor) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	req, fails, problem := prepare(ctx, c)
	if problem != nil {
		return node.Result{}, problem
	}
	req, err := authorize(ctx, c, req)
	if err != nil {
		return node.Result{}, err
	}
	began := time.Now()
	res, err := x.client.Do(req)
	if err != nil {
		return node.Result{}, callFailed(ctx, req, err)
	}
	defer res.Body.Close()
	if c.Log != nil {
		level := slog.LevelDebug
		if fails(res.StatusCode) {
			level = slog.LevelInfo
		}
		c.Log.Log(ctx, level, where(req), "status", res.StatusCode, "ms", time.Since(began).Milliseconds())
	}
	limit := c.Limits.MaxValueBytes
	if limit <= 0 {
		limit = 256 << 10
	}
	body, err := readBody(ctx, res, limit, c.Memory)
	if err != nil {
		var ne *node.Error
		if errors.As(err, &ne) {
			return node.Result{}, ne
		}
		return node.Result{}, callFailed(ctx, req, err)
	}
	headers := make(map[string]any, len(res.Header))
	for name, values := range res.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	out := map[string]any{"status": res.StatusCode, "headers": headers, "body": body}
	if fails(res.StatusCode) {
		return node.Result{}, statusFailed(req, res, out)
	}
	return node.Result{Output: out}, nil
}

func prepare(ctx context.Context, c node.Call) (*http.Request, func(int) bool, *node.Error) {
	method, problem := text(c.Config, "method")
	if problem != nil {
		return nil, nil, problem
	}
	if method == "" {
		method = http.MethodGet
	}
	raw, problem := text(c.Config, "url")
	if problem != nil {
		return nil, nil, problem
	}
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, nil, &node.Error{Code: "config", Message: "url is not an http or https URL with a host"}
	}
	if problem := addQuery(u, c.Config["query"]); problem != nil {
		return nil, nil, problem
	}
	fails, problem := failOn(c.Config["failOn"])
	if problem != nil {
		return nil, nil, problem
	}
	var body []byte
	isJSON := false
	switch b := c.Config["body"].(type) {
	case nil:
	case string:
		body = []byte(b)
	default:
		if body, err = flow.EncodeValue(b); err != nil {
			return nil, nil, &node.Error{Code: "config", Message: "body can't be written as JSON: " + err.Error()}
		}
		isJSON = true
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, &node.Error{Code: "config", Message: "the request can't be made: " + strings.ReplaceAll(err.Error(), u.String(), "the URL")}
	}
	if len(body) == 0 {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	}
	req.Header.Set("User-Agent", "flow-platform")
	req.Header.Set("Accept-Encoding", "gzip")
	if isJSON {
		req.Header.Set("Content-Type", "application/json")
	}
	if problem := setHeaders(req, c.Config["headers"]); problem != nil {
		return nil, nil, problem
	}
	req.Header.Set("Idempotency-Key", c.IdempotencyKey)
	req.Header.Set("X-Flow-Attempt", strconv.Itoa(c.Attempt))
	return req, fails, nil
}

func addQuery(u *url.URL, v any) *node.Error {
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return wrong("query", v, "an object")
	}
	q := u.Query()
	for name, v := range m {
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, item := range list {
			if item == nil {
				continue
			}
			s, ok := literal(item)
			if !ok {
				return wrong("query."+name, item, "a text, a number, true or false, or a list of these")
			}
			q.Add(name, s)
		}
	}
	u.RawQuery = q.Encode()
	return nil
}

func setHeaders(req *http.Request, v any) *node.Error {
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return wrong("headers", v, "an object")
	}
	for name, v := range m {
		if v == nil {
			continue
		}
		s, ok := literal(v)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(s) {
			return &node.Error{Code: "config", Message: fmt.Sprintf("headers.%s is not a header that can be sent", name)}
		}
		if strings.EqualFold(name, "Host") {
			req.Host = s
			continue
		}
		req.Header.Set(name, s)
	}
	return nil
}

// failOn makes the question whether a status fails the step.
func failOn(v any) (func(int) bool, *node.Error) {
	const want = `"never", or a list of statuses and classes like [404, "5xx"]`
	switch t := v.(type) {
	case nil:
		return func(s int) bool { return s >= 400 }, nil
	case string:
		if t == "never" {
			return func(int) bool { return false }, nil
		}
	case []any:
		statuses, classes := map[int]bool{}, map[int]bool{}
		for _, item := range t {
			switch s := item.(type) {
			case int:
				statuses[s] = true
				continue
			case string:
				if len(s) == 3 && strings.HasSuffix(strings.ToLower(s), "xx") && s[0] >= '1' && s[0] <= '5' {
					classes[int(s[0]-'0')] = true
					continue
				}
				if n, err := strconv.Atoi(s); err == nil {
					statuses[n] = true
					continue
				}
			}
			return nil, wrong("failOn", v, want)
		}
		return func(s int) bool { return statuses[s] || classes[s/100] }, nil
	}
	return nil, wrong("failOn", v, want)
}

// freeBody is how much of an answer is read without a share of the worker's memory.
const freeBody = 16 << 10

// readBody reads at most limit bytes, also of what is unpacked: a small answer may be a large one in disguise. Before it reads more than freeBody of an answer it
// takes memory for what may come: once and for all, so that no two answers wait for each other.
func readBody(ctx context.Context, res *http.Response, limit int, memory func(context.Context, int) error) (any, error) {
	known := int(min(res.ContentLength, int64(limit)+1))
	var in io.Reader = res.Body
	if strings.EqualFold(res.Header.Get("Content-Encoding"), "gzip") && res.ContentLength != 0 && res.Request.Method != http.MethodHead {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, &node.Error{Code: "http-body", Message: "the server says that its answer is packed with gzip, and it is not", Retryable: true}
		}
		defer z.Close()
		in = z
		res.Header.Del("Content-Encoding")
		res.Header.Del("Content-Length")
		known = -1
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	isJSON := media == "application/json" || strings.HasSuffix(media, "+json")
	b, err := io.ReadAll(io.LimitReader(in, freeBody))
	if err == nil && len(b) == freeBody {
		most := known
		if most < 0 {
			most = limit
		}
		times := 2 // the bytes, and the text made of them
		if isJSON {
			times = 6 // numbers and small objects take much more than their JSON
		}
		if memory != nil {
			if err := memory(ctx, times*most); err != nil {
				return nil, err
			}
		}
		buf := bytes.NewBuffer(b)
		if known > 0 {
			buf.Grow(known - len(b) + bytes.MinRead)
		}
		_, err = buf.ReadFrom(io.LimitReader(in, int64(limit)+1-freeBody))
		b = buf.Bytes()
		if unused := times * (most - len(b)); memory != nil && unused > 0 { // an answer of unknown length was taken for the largest
			if err := memory(ctx, -unused); err != nil {
				return nil, err
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, &node.Error{Code: "http-too-large", Message: fmt.Sprintf("the answer is larger than %d KiB: ask for less, or for a page of it", limit>>10)}
	}
	if len(b) > 0 && isJSON {
		if v, err := flow.DecodeValue(b); err == nil {
			return v, nil
		}
		// A server that calls something JSON that is not: its text says more than an error could.
	}
	if utf8.Valid(b) {
		return string(b), nil
	}
	return map[string]any{"base64": base64.StdEncoding.EncodeToString(b)}, nil
}

// where names a request without its query and user, which may be secrets.
func where(req *http.Request) string {
	return req.Method + " " + req.URL.Scheme + "://" + req.URL.Host + req.URL.EscapedPath()
}

func statusFailed(req *http.Request, res *http.Response, out map[string]any) *node.Error {
	s := res.StatusCode
	e := &node.Error{Code: "http-status", Data: out, Message: fmt.Sprintf("%s answered %d %s", where(req), s, http.StatusText(s))}
	e.Retryable = s >= 500 && s != http.StatusNotImplemented || s == http.StatusRequestTimeout || s == http.StatusTooEarly || s == http.StatusTooManyRequests
	if after := res.Header.Get("Retry-After"); after != "" {
		out["retryAfter"] = after
	}
	return e
}

func callFailed(ctx context.Context, req *http.Request, err error) *node.Error {
	e := &node.Error{Code: "http-connect", Retryable: true, Err: err}
	var ref *refused
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &ref):
		e.Code, e.Retryable = "http-refused-address", false
		e.Message = ref.Error()
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		e.Code = "http-timeout"
		e.Message = where(req) + " did not answer in time: raise the node's timeout, or look at the server"
	case errors.As(err, &dns):
		e.Message = fmt.Sprintf("the name %s can't be found (%s): look at its spelling and at the name server", dns.Name, dns.Err)
	case errors.As(err, &cert):
		e.Code, e.Retryable = "http-tls", false
		e.Message = fmt.Sprintf("the certificate of %s is not trusted: %v", req.URL.Host, cert.Err)
	default:
		var ue *url.Error
		cause := err
		if errors.As(err, &ue) { // its text holds the whole URL
			cause = ue.Err
		}
		e.Message = fmt.Sprintf("%s failed: %v", where(req), cause)
	}
	return e
}

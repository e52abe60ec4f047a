// Package problem is how the gateway says no: RFC 9457 problem details, with one entry for each field that is wrong.
package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// ContentType of every error.
const ContentType = "application/problem+json"

// Problem is an error as the client sees it. It is an error that huma can answer with (status, headers, content type).
type Problem struct {
	Type     string  `json:"type" doc:"about:blank: the status says it all" example:"about:blank"`
	Title    string  `json:"title" doc:"The status in words" example:"Unprocessable Entity"`
	Status   int     `json:"status" doc:"HTTP status" example:"422"`
	Detail   string  `json:"detail,omitempty" doc:"What happened, the likely cause, and what to do"`
	Instance string  `json:"instance,omitempty" doc:"Id of the request, as it stands in the logs"`
	Errors   []Field `json:"errors,omitempty" doc:"One entry for each field that is wrong"`

	header http.Header
	cause  error
}

// Field is one thing that is wrong with a request.
type Field struct {
	Pointer  string `json:"pointer,omitempty" doc:"JSON pointer (RFC 6901) into the body; absent for the whole body and for parameters" example:"/nodes/0/type"`
	Location string `json:"location" doc:"Where it stands: body, query, path or header, with the parameter's name" example:"body"`
	Code     string `json:"code,omitempty" doc:"Stable code for programs" example:"unknown-node-type"`
	Message  string `json:"message" doc:"What is wrong, and what to do"`
	Column   int    `json:"column,omitempty" doc:"Where in the string that the pointer names, in characters from 1, when an expression is at fault"`
}

// New makes a problem with a status and an explanation.
func New(status int, format string, args ...any) *Problem {
	detail := format
	if len(args) > 0 {
		detail = fmt.Sprintf(format, args...)
	}
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// Invalid is a 422 that lists what is wrong.
func Invalid(detail string, fields ...Field) *Problem {
	p := New(http.StatusUnprocessableEntity, "%s", detail)
	p.Errors = fields
	return p
}

// Body is an entry about a place in the body; pointer "" is the whole of it.
func Body(pointer, code, format string, args ...any) Field {
	return Field{Pointer: pointer, Location: "body", Code: code, Message: fmt.Sprintf(format, args...)}
}

// Parameter is an entry about a parameter; in is query, path or header.
func Parameter(in, name, format string, args ...any) Field {
	return Field{Location: in + "." + name, Message: fmt.Sprintf(format, args...)}
}

// Wrap keeps an error beside a problem, for the log: the client never sees it.
func (p *Problem) Wrap(err error) *Problem {
	p.cause = err
	return p
}

// With adds a header to the answer.
func (p *Problem) With(name, value string) *Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

// RetryAfter says when to come back; at least a second.
func (p *Problem) RetryAfter(d time.Duration) *Problem {
	return p.With("Retry-After", strconv.Itoa(max(1, int((d+time.Second-1)/time.Second))))
}

// Error implements error.
func (p *Problem) Error() string {
	if p.cause != nil {
		return fmt.Sprintf("%d %s: %s: %v", p.Status, p.Title, p.Detail, p.cause)
	}
	return fmt.Sprintf("%d %s: %s", p.Status, p.Title, p.Detail)
}

// Unwrap gives what Wrap kept.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return ContentType }

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	h := w.Header()
	for k, v := range p.header {
		h[k] = v
	}
	h.Set("Content-Type", ContentType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// From gives the problem in an error's chain; false when there is none.
func From(err error) (*Problem, bool) {
	var p *Problem
	ok := errors.As(err, &p)
	return p, ok
}

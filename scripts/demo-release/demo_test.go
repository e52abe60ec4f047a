package main

import (
	"bytes"
	"strings"
	"testing"

	"flowplatform/services/e2e/chaos"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for args, ok := range map[string]bool{
		"":                      true,
		"--rate 5 --bad=false":  true,
		"--rate 0":              false,
		"--rate 201":            false,
		"--settle 0s":           false,
		"--bound 1s":            false,
		"--bound 20m and more":  false,
		"--no-such-thing":       false,
		"--file x --bound 2m":   true,
		"--settle 2h --rate 10": false,
	} {
		if _, err := parse(strings.Fields(args)); (err == nil) != ok {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// Whatever a client, the outside world or the database has seen go wrong is a broken promise.
func TestJudge(t *testing.T) {
	t.Parallel()
	good := chaos.Counts{Requests: 10, Accepted: 10, Final: 10, Succeeded: 10, Calls: 30, Again: 2}
	for want, spoil := range map[string]func(*chaos.Counts){
		"":                              func(*chaos.Counts) {},
		"1 requests failed: HTTP 502":   func(c *chaos.Counts) { c.Errors = map[string]int{"HTTP 502": 1} },
		"1 accepted executions lost":    func(c *chaos.Counts) { c.Lost = 1 },
		"2 steps were called again":     func(c *chaos.Counts) { c.Repeated = 2 },
		"1 calls of confirmed steps":    func(c *chaos.Counts) { c.Doubled = 1 },
		"1 executions ended as failed":  func(c *chaos.Counts) { c.Otherwise = map[string]int{"failed": 1} },
		"nothing was accepted: no load": func(c *chaos.Counts) { c.Accepted = 0 },
	} {
		r := &record{Counts: good}
		spoil(&r.Counts)
		r.judge()
		if got := strings.Join(r.Broken, "; "); (got == "") != (want == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	var out bytes.Buffer
	r := &record{Counts: good}
	if err := r.print(&out); err != nil || !strings.Contains(out.String(), "10, 0 failed; 2 found") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"flowplatform/scripts/internal/spec"
)

func TestSessionIsFoundInAnEnvironment(t *testing.T) {
	t.Parallel()
	for environment, want := range map[string]session{
		"A=1\x00SSH_CONNECTION=203.0.113.7 50000 10.9.0.1 2222\x00B=2": {netip.MustParseAddr("203.0.113.7"), 2222},
		"SSH_CONNECTION=::ffff:203.0.113.7 50000 10.9.0.1 22":          {netip.MustParseAddr("203.0.113.7"), 22},
		"SSH_CONNECTION=fe80::1%eth0 50000 fe80::2%eth0 22":            {netip.MustParseAddr("fe80::1"), 22},
		"SSH_CONNECTION=nonsense":                                      {},
		"OTHER_SSH_CONNECTION=203.0.113.7 50000 10.9.0.1 22":           {},
		"": {},
	} {
		got, found := parseSession(environment)
		if got != want || found != want.From.IsValid() {
			t.Errorf("parseSession(%q) = %v, %v", environment, got, found)
		}
	}
}

func TestAnOperatorIsNotLockedOut(t *testing.T) {
	t.Parallel()
	n := workerNode(t)
	for from, refused := range map[string]bool{
		"203.0.113.200": false, "10.9.0.2": false, "fd00:a::7": false, "127.0.0.1": false, "fe80::1": false,
		"203.0.114.1": true, "fd00:b::7": true, "10.9.0.200": true,
	} {
		err := lockedOut(n, session{From: netip.MustParseAddr(from)})
		if (err != nil) != refused {
			t.Errorf("from %s: %v", from, err)
		}
		if err != nil && (!strings.Contains(err.Error(), from) || !strings.Contains(err.Error(), "203.0.113.0/24")) {
			t.Errorf("the error names neither the address nor what is allowed: %v", err)
		}
	}
	if err := lockedOut(n, session{}); err != nil {
		t.Errorf("without a session: %v", err)
	}
}

func TestSSHPortsAreTheDaemonsOwn(t *testing.T) {
	t.Parallel()
	daemon := host{run: func(context.Context, string, ...string) (string, error) {
		return "port 2222\nport 22\naddressfamily any\n", nil
	}}
	none := host{run: func(context.Context, string, ...string) (string, error) { return "", errors.New("no sshd") }}
	for name, c := range map[string]struct {
		h    host
		port int
		s    session
		want []int
	}{
		"the daemon's":          {daemon, 10022, session{}, []int{22, 2222}},
		"and the session's":     {daemon, 0, session{Port: 443}, []int{22, 443, 2222}},
		"the session's alone":   {none, 10022, session{Port: 22}, []int{22}},
		"what the operator has": {none, 10022, session{}, []int{10022}},
		"else 22":               {none, 0, session{}, []int{22}},
	} {
		if got := c.h.sshPorts(t.Context(), spec.Host{Port: c.port}, c.s); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestInterfaceThatBearsTheAddress(t *testing.T) {
	t.Parallel()
	if name, err := interfaceOf("127.0.0.1"); err != nil || name != "lo" {
		t.Errorf("127.0.0.1 is on %q, %v", name, err)
	}
	if _, err := interfaceOf("192.0.2.77"); err == nil || !strings.Contains(err.Error(), "192.0.2.77 is on no interface") || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("an address that is nowhere: %v", err)
	}
}

func TestReadNodeSaysWhatIsWrongAndShowsNoSecret(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		"":               "no whole JSON document",
		`{"cluster": `:   "no whole JSON document",
		`{"clutser":""}`: "unknown field",
		`{"cluster":"lab","secrets":{"consul_agent":"a-secret-token","key":"a-secret-key"}}`: "secrets.consul_agent: a token is a UUID",
	} {
		_, err := readNode(strings.NewReader(document))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", document, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "a-secret") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

func TestSecondOneWaitsForTheLock(t *testing.T) {
	t.Parallel()
	h, said := testHost(t)
	unlock, err := h.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		unlock, err := h.lock(t.Context())
		if err == nil {
			unlock()
		}
		got <- err
	}()
	eventually(t, func() bool { return strings.Contains(said(), "waiting for it") })
	// A remove takes the lock's file away with the rest: who waited for it must not hold a lock that nobody else sees.
	if err := os.RemoveAll(h.path(spec.NodeState)); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.path(spec.NodeState + "/lock")); err != nil {
		t.Errorf("the second one holds a lock without a file: %v", err)
	}
}

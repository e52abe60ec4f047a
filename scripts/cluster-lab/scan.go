package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"flowplatform/scripts/internal/lab"
)

const scanCommand = "scan"

// found is what answered a scan: of TCP a connection or a refusal, of UDP a refusal; what a firewall drops answers nothing.
type found struct {
	Open    []string `json:"open"`    // address:port
	Refused []string `json:"refused"` // address:port, with /udp
}

// scan tries TCP ports, and the UDP ports of agents, of addresses from the namespace of the one outside.
func scan(ctx context.Context, l *lab.Lab, addresses []string, ports []int) (found, error) {
	var f found
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	input, err := json.Marshal(ports)
	if err != nil {
		return f, err
	}
	var stdout, stderr bytes.Buffer
	cmd := l.Command(ctx, self, scanCommand, strings.Join(addresses, ","))
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return f, fmt.Errorf("scan ports: %w: %s", err, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &f); err != nil {
		return f, fmt.Errorf("scan ports: %w: %s", err, stdout.String())
	}
	return f, nil
}

// udpPorts are those of the agents and of what else a host may listen on.
var udpPorts = []int{53, 123, 5353, 8300, 8301, 8302, 8600, 4648, 4789}

func scanMain(args []string) int {
	var ports []int
	if len(args) != 1 || json.NewDecoder(os.Stdin).Decode(&ports) != nil {
		fmt.Fprintln(os.Stderr, "scan: addresses, and ports on standard input")
		return 2
	}
	if err := json.NewEncoder(os.Stdout).Encode(try(strings.Split(args[0], ","), ports)); err != nil {
		return 1
	}
	return 0
}

// try asks every port, two thousand at a time: what a firewall drops costs its whole time limit.
func try(addresses []string, ports []int) found {
	var mu sync.Mutex
	f := found{Open: []string{}, Refused: []string{}}
	note := func(list *[]string, what string) {
		mu.Lock()
		defer mu.Unlock()
		*list = append(*list, what)
	}
	free := make(chan struct{}, 2000)
	var all sync.WaitGroup
	for _, p := range ports {
		for _, a := range addresses {
			free <- struct{}{}
			all.Go(func() {
				defer func() { <-free }()
				target := net.JoinHostPort(a, strconv.Itoa(p))
				conn, err := net.DialTimeout("tcp", target, time.Second)
				switch {
				case err == nil:
					conn.Close()
					note(&f.Open, target)
				case errors.Is(err, syscall.ECONNREFUSED):
					note(&f.Refused, target)
				}
			})
		}
	}
	for _, a := range addresses {
		for _, p := range udpPorts {
			all.Go(func() {
				target := net.JoinHostPort(a, strconv.Itoa(p))
				conn, err := net.Dial("udp", target)
				if err != nil {
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				_, _ = conn.Write([]byte("?"))
				switch n, err := conn.Read(make([]byte, 1500)); {
				case err == nil && n > 0:
					note(&f.Open, target+"/udp")
				case errors.Is(err, syscall.ECONNREFUSED):
					note(&f.Refused, target+"/udp")
				}
			})
		}
	}
	all.Wait()
	slices.Sort(f.Open)
	slices.Sort(f.Refused)
	return f
}

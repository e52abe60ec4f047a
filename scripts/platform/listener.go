package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// process is a program that runs on this machine.
type process struct {
	PID  int
	Name string
}

func (p process) String() string {
	if p.PID == 0 {
		return "a program that can't be seen from here"
	}
	return fmt.Sprintf("%s (process %d)", p.Name, p.PID)
}

// isFree says whether a port of the loopback can be listened on.
func isFree(number int) bool {
	l, err := net.Listen("tcp", loopback+":"+strconv.Itoa(number))
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	return l.Close() == nil
}

// portTaken is the error for a port that another program has.
type portTaken struct {
	Port   int
	What   string
	Holder process
	Moves  string // the variable that moves ours
}

func (e *portTaken) Error() string {
	return fmt.Sprintf("port %d, for %s, is taken by %s; stop it, or move ours: make up %s=%d", e.Port, e.What, e.Holder, e.Moves, elsewhere(e.Port))
}

// elsewhere is a port that is likely to be free, also for those that follow it.
func elsewhere(number int) int {
	if number < 50000 {
		return number + 10000
	}
	return number - 10000
}

// requireFree returns a *portTaken when another program has the port.
func requireFree(s settings, variable string) error {
	number := s.Ports[variable]
	if isFree(number) {
		return nil
	}
	what := variable
	for _, p := range ports() {
		if p.Variable == variable {
			what = p.What
		}
	}
	return &portTaken{Port: number, What: what, Holder: holderOf(number), Moves: variable}
}

// holderOf finds the process that listens on a port, by the socket's inode in /proc.
func holderOf(number int) process {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for _, inode := range listeningInodes(bufio.NewScanner(f), number) {
			inodes["socket:["+inode+"]"] = true
		}
		f.Close()
	}
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, d := range descriptors {
		target, err := os.Readlink(d)
		if err != nil || !inodes[target] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(d, "/")[2])
		if err != nil {
			continue
		}
		return process{PID: pid, Name: processName(pid)}
	}
	return process{}
}

// listeningInodes reads a table in the format of /proc/net/tcp.
func listeningInodes(table *bufio.Scanner, number int) []string {
	const listening = "0A"
	var inodes []string
	suffix := fmt.Sprintf(":%04X", number)
	for table.Scan() {
		fields := strings.Fields(table.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == listening {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}

func processName(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "an unknown program"
	}
	return strings.TrimSpace(string(b))
}

package main

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestTakenPortNamesItsHolderAndTheVariable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	number := l.Addr().(*net.TCPAddr).Port
	s := settings{Ports: map[string]int{"FRONT_DOOR_PORT": number}}

	var taken *portTaken
	if err := requireFree(s, "FRONT_DOOR_PORT"); !errors.As(err, &taken) {
		t.Fatalf("requireFree of a taken port = %v", err)
	}
	if taken.Holder.PID != os.Getpid() {
		t.Errorf("holder = %+v, want this process, %d", taken.Holder, os.Getpid())
	}
	for _, want := range []string{strconv.Itoa(number), taken.Holder.Name, "the front door", "FRONT_DOOR_PORT=" + strconv.Itoa(elsewhere(number))} {
		if !strings.Contains(taken.Error(), want) {
			t.Errorf("message %q doesn't say %q", taken, want)
		}
	}
	l.Close()
	if err := requireFree(s, "FRONT_DOOR_PORT"); err != nil {
		t.Errorf("requireFree of a free port = %v", err)
	}
}

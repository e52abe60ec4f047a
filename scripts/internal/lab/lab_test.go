package lab

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// on runs a command on a host and returns what it printed.
func on(t *testing.T, l *Lab, host string, command ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	output, err := l.SSH(ctx, host, command...).CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

func must(t *testing.T, l *Lab, host string, command ...string) string {
	t.Helper()
	output, err := on(t, l, host, command...)
	if err != nil {
		t.Fatalf("%s on %s: %v: %s", command, host, err, output)
	}
	return output
}

func up(t *testing.T, dir string, names ...string) *Lab {
	t.Helper()
	l, err := Up(t.Context(), dir, Options{Names: names, Bare: true, MemoryMB: 256, Owner: os.Getpid(), Say: func(line string) { t.Log(line) }})
	if l != nil {
		t.Cleanup(func() {
			if err := l.Down(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// leftovers is what of a lab is still on this machine.
func leftovers(t *testing.T, l *Lab) []string {
	t.Helper()
	var found []string
	for _, h := range l.Hosts {
		if l.Running(h.Name) {
			found = append(found, h.Name+" runs")
		}
	}
	patterns := []string{l.Dir, "/sys/class/net/" + l.Bridge() + "*", "/run/netns/" + l.Bridge() + "-*", "/sys/fs/cgroup/" + l.Bridge(), "/sys/fs/cgroup/*/" + l.Bridge(),
		filepath.Join(registry, strconv.Itoa(l.Number))}
	for _, p := range patterns {
		files, _ := filepath.Glob(p)
		found = append(found, files...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), l.Dir+"/") {
		found = append(found, "mounts below "+l.Dir)
	}
	return found
}

func TestHostsOnThisMachine(t *testing.T) {
	if err := Able(t.Context()); err != nil {
		t.Skip(err)
	}
	l := up(t, t.TempDir()+"/lab", "a", "b")
	other := up(t, t.TempDir()+"/lab", "a") // a second lab beside it, with a host of the same name

	if got := must(t, l, "a", "hostname"); got != "a" {
		t.Errorf("the host is named %q", got)
	}
	if x, y := must(t, l, "a", "cat", "/etc/machine-id"), must(t, l, "b", "cat", "/etc/machine-id"); x == y {
		t.Errorf("two hosts have the machine id %s", x)
	}
	a, _ := l.Host("a")
	b, _ := l.Host("b")
	reach := func(address string) []string {
		return []string{"timeout", "5", "bash", "-c", "'exec 3<>/dev/tcp/" + strings.Replace(address, ":", "/", 1) + " && head -c 4 <&3'"}
	}
	if got := must(t, l, "a", reach(b.Address+":22")...); got != "SSH-" {
		t.Errorf("from a, b says %q", got)
	}
	o, _ := other.Host("a")
	for _, away := range []string{o.Address + ":22", "192.0.2.1:80"} {
		if got, err := on(t, l, "a", reach(away)...); err == nil {
			t.Errorf("a host of one lab reaches %s: %s", away, got)
		}
	}
	if out, err := l.Command(t.Context(), "timeout", "5", "bash", "-c", "exec 3<>/dev/tcp/"+a.Address+"/22 && head -c 4 <&3").CombinedOutput(); err != nil || string(out) != "SSH-" {
		t.Errorf("the one outside doesn't reach a: %v: %s", err, out)
	}
	// Its own root of control groups, which it may write in and which has its limit.
	must(t, l, "a", "for tree in /sys/fs/cgroup/*/; do mkdir $tree/trial || exit 1; done")
	if out, err := on(t, l, "a", "head -c 400m /dev/zero | tail >/dev/null"); err == nil {
		t.Errorf("a host of 256 MB holds 400 MB: %s", out)
	}

	must(t, l, "b", "echo kept >/root/kept && sync")
	if err := l.Kill(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.DialTimeout("tcp", b.Address+":22", time.Second); err == nil {
		conn.Close()
		t.Error("a killed host still answers")
	}
	again := up(t, l.Dir, "a", "b", "c") // starts b, adds c, leaves a alone
	if got := must(t, again, "b", "cat", "/root/kept"); got != "kept" {
		t.Errorf("after a kill the host's file says %q", got)
	}
	must(t, again, "c", "true")
	if err := again.Remove(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(again.base("c")); err == nil || again.Running("c") || len(again.Hosts) != 2 {
		t.Errorf("a host that was removed is still there: %v", again.Hosts)
	}

	if err := again.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, again); len(left) > 0 {
		t.Errorf("after Down there is still: %s", strings.Join(left, ", "))
	}
	must(t, other, "a", "true")
}

// A lab whose owner was killed is swept away by the next one.
func TestAnAbandonedLabIsSweptAway(t *testing.T) {
	if err := Able(t.Context()); err != nil {
		t.Skip(err)
	}
	l := up(t, t.TempDir()+"/lab", "a")
	entry := filepath.Join(registry, strconv.Itoa(l.Number), "lab.json")
	if err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.Running("a") {
		t.Fatal("a lab whose owner lives was swept away")
	}
	if err := writeJSON(entry, claim{Dir: l.Dir, Owner: os.Getpid(), Born: "another process of this id"}); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, l); len(left) > 0 {
		t.Errorf("after Sweep there is still: %s", strings.Join(left, ", "))
	}
}

func TestAddressesOfHosts(t *testing.T) {
	t.Parallel()
	l := &Lab{Number: 7, Hosts: []Host{{Name: "a", Address: "10.221.7.11"}, {Name: "b", Address: "10.221.7.41"}}}
	for asked, want := range map[string]int{"": 12, "13": 13} {
		if got, err := l.place(asked); err != nil || got != want {
			t.Errorf("place(%q) = %d, %v", asked, got, err)
		}
	}
	for _, bad := range []string{"41", "10", "250", "x"} {
		if got, err := l.place(bad); err == nil {
			t.Errorf("place(%q) = %d", bad, got)
		}
	}
}

func TestNamesOfHosts(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "A", "a b", "-a", strings.Repeat("a", 41), "a/b", "a.b"} {
		if err := ground([]string{"good", bad}); err == nil {
			t.Errorf("%q is taken for a host's name", bad)
		}
	}
	if err := ground([]string{"s1", "w-2"}); err != nil {
		t.Error(err)
	}
	if err := ground(nil); err == nil {
		t.Error("a lab of no hosts is made")
	}
}

func TestTheArchiveThatThisMachineUses(t *testing.T) {
	t.Parallel()
	for want, file := range map[string]string{
		"http://deb.debian.org/debian":         "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n",
		"https://mirror.example/mirror/debian": "deb [signed-by=/k] https://mirror.example/mirror/debian/ bookworm main\n",
	} {
		if got := debianURI.FindStringSubmatch(file); got == nil || got[1] != want {
			t.Errorf("%q: %v", file, got)
		}
	}
	if got := debianURI.FindString("URIs: http://deb.debian.org/debian-security\n"); got != "" {
		t.Errorf("the archive of security updates is taken for the archive: %q", got)
	}
}

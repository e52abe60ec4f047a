package leftovers

import (
	"strings"
	"testing"
)

func TestMountsBelowAreFoundInnermostFirst(t *testing.T) {
	t.Parallel()
	const mountinfo = `22 1 8:1 / / rw - ext4 /dev/vda rw
90 22 0:50 / /data/flow/nomad/alloc/a/task/secrets rw - tmpfs tmpfs rw
91 22 8:1 /usr /data/flow/nomad/alloc/a/task/usr ro - ext4 /dev/vda rw
92 91 0:51 / /data/flow/nomad/alloc/a/task/usr/local\040x rw - tmpfs tmpfs rw
93 22 0:52 / /data/flower rw - tmpfs tmpfs rw
`
	got := MountsBelow(mountinfo, "/data/flow")
	want := []string{"/data/flow/nomad/alloc/a/task/usr/local x", "/data/flow/nomad/alloc/a/task/usr", "/data/flow/nomad/alloc/a/task/secrets"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("MountsBelow = %q, want %q", got, want)
	}
}

func TestOrphansAreKnownByTheirControlGroup(t *testing.T) {
	t.Parallel()
	ours := map[string]bool{"fc945e81-04c0-a499-7a52-207665f189a4": true}
	for text, want := range map[string]bool{
		"5:devices:/nomad/fc945e81-04c0-a499-7a52-207665f189a4.rabbitmq\n3:cpuset:/nomad/share\n": true,
		"0::/nomad.slice/share.slice/fc945e81-04c0-a499-7a52-207665f189a4.rabbitmq.scope\n":       true,
		"5:devices:/nomad/00000000-04c0-a499-7a52-207665f189a4.rabbitmq\n3:cpuset:/nomad/share\n": false,
		"0::/user.slice/user-0.slice/session-1.scope\n":                                           false,
		"0::/\n": false,
	} {
		if got := InGroupOf(text, ours); got != want {
			t.Errorf("InGroupOf(%q) = %v, want %v", text, got, want)
		}
	}
}

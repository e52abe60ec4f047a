package running

import "testing"

func TestInGroupOf(t *testing.T) {
	t.Parallel()
	for cgroup, want := range map[string]bool{
		"2:cpu:/nomad/aa-1.worker\n0::/nomad/aa-1.worker\n": true,
		"0::/nomad.slice/share.slice/aa-1.worker.scope\n":   true,
		"0::/nomad/aa-12.worker\n":                          false,
		"0::/nomad/bb-1.worker\n":                           false,
		"0::/nomad/aa-1.worker/below\n":                     false,
		"0::/\n":                                            false,
		"":                                                  false,
		"1:name=systemd:/aa-1\n0::/user.slice/session-1.scope\n":               false,
		"12:pids:/system.slice\n1:cpu:/nomad/share/aa-1.postgres\n0::/nomad\n": true,
	} {
		if got := inGroupOf(cgroup, "aa-1"); got != want {
			t.Errorf("%q: %v", cgroup, got)
		}
	}
}

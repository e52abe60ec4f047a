package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// judged is one case: what is judged, how, and a part of what is said.
type judged struct {
	name  string
	got   finding
	state State
	says  string
}

func compare(t *testing.T, cases []judged) {
	t.Helper()
	for _, c := range cases {
		if c.got.State != c.state || !strings.Contains(c.got.Detail, c.says) {
			t.Errorf("%s: %s %q, want %s with %q", c.name, c.got.State, c.got.Detail, c.state, c.says)
		}
	}
}

func read[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestJudgeServers(t *testing.T) {
	t.Parallel()
	s := func(name string, leads, healthy, votes bool) server {
		return server{Name: name, Leader: leads, Healthy: healthy, Voter: votes, SerfStatus: "failed"}
	}
	three := []string{"a", "b", "c"}
	compare(t, []judged{
		{"three of three", judgeQuorum("a", three, autopilot{true, 1, []server{s("a", true, true, true), s("b", false, true, true), s("c", false, true, true)}}, false), OK, "the loss of 1 is survived"},
		{"no leader", judgeQuorum("", three, autopilot{}, false), Failed, "no leader"},
		{"one ill", judgeQuorum("a", three, autopilot{false, 0, []server{s("a", true, true, true), s("b", false, false, true), s("c", false, true, true)}}, false), Failed, "server b"},
		{"one new", judgeQuorum("a", three, autopilot{true, 0, []server{s("a", true, true, true), s("b", false, true, true), s("c", false, true, false)}}, false), Failed, "c has no vote"},
		{"two lead", judgeQuorum("a", three[:2], autopilot{true, 0, []server{s("a", true, true, true), s("b", true, true, true)}}, false), Failed, "2 servers say"},
		{"one that has gone is still in the log", judgeQuorum("a", three, autopilot{true, 0, []server{s("a", true, true, true), s("b", false, true, true)}}, false), Failed, "2 servers vote, 3"},
		{"one server for many hosts", judgeQuorum("a", three[:1], autopilot{true, 0, []server{s("a", true, true, true)}}, false), Warning, "one server stops"},
		{"one machine", judgeQuorum("a", three[:1], autopilot{true, 0, []server{s("a", true, true, true)}}, true), OK, "voters 1"},
		{"all alive, one has left", judgeMembers([]member{{Name: "a", Status: 1}, {Name: "b", Status: 3}}), OK, ""},
		{"one has failed", judgeMembers([]member{{Name: "a", Status: 1}, {Name: "b", Status: 4}}), Failed, "b"},
		{"checks pass", judgeChecks([]healthCheck{{Node: "a", Status: "passing", ServiceName: "gateway"}, {Node: "a", Status: "passing"}}), OK, "2, of 2"},
		{"a check fails", judgeChecks([]healthCheck{{Node: "a", Status: "warning"}, {Node: "b", Status: "critical", ServiceName: "redis", Output: "refused"}}), Failed, "redis on b: : refused"},
		{"a check warns", judgeChecks([]healthCheck{{Node: "a", Status: "warning"}}), Warning, "host on a"},
		{"no checks", judgeChecks(nil), Failed, "none"},
		{"hosts are ready", judgeNodes([]node{{Name: "a", Status: "ready", SchedulingEligibility: "eligible"}}), OK, "1"},
		{"a host is down", judgeNodes([]node{{Name: "a", Status: "down", SchedulingEligibility: "eligible"}}), Failed, "a ()"},
		{"a host is drained", judgeNodes([]node{{Name: "a", Status: "ready", Drain: true}}), Warning, "drained"},
		{"a host takes nothing", judgeNodes([]node{{Name: "a", Status: "ready", SchedulingEligibility: "ineligible"}}), Warning, "nothing new"},
		{"no hosts", judgeNodes(nil), Failed, ""},
	})
}

func TestJudgeJobs(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	service := read[job](t, `{"ID": "gateway", "Type": "service", "Version": 3, "TaskGroups": [{"Name": "gateway", "Count": 2}]}`)
	run := read[allocation](t, `{"ID": "0a", "TaskGroup": "gateway", "ClientStatus": "running", "DesiredStatus": "run"}`)
	stopping, ill, again, long := run, run, run, run
	stopping.DesiredStatus = "stop"
	ill = read[allocation](t, `{"ID": "0a", "Name": "gateway[1]", "TaskGroup": "gateway", "ClientStatus": "running", "DesiredStatus": "run", "DeploymentStatus": {"Healthy": false}}`)
	again = read[allocation](t, `{"ID": "0a", "TaskGroup": "gateway", "ClientStatus": "running", "DesiredStatus": "run", "TaskStates": {"gateway": {"State": "running", "Restarts": 4, "LastRestart": "2026-11-01T11:58:00Z"}}}`)
	long = read[allocation](t, `{"ID": "0a", "TaskGroup": "gateway", "ClientStatus": "running", "DesiredStatus": "run", "TaskStates": {"gateway": {"State": "running", "Restarts": 4, "LastRestart": "2026-10-31T11:58:00Z"}}}`)
	system := read[job](t, `{"ID": "logs", "Type": "system", "TaskGroups": [{"Name": "gateway"}]}`)
	some := read[job](t, `{"ID": "door", "Type": "system", "Constraints": [{}], "TaskGroups": [{"Name": "gateway"}]}`)
	full := some
	full.Queued = map[string]int{"gateway": 1}
	batch := read[job](t, `{"ID": "migrate", "Type": "batch", "Status": "dead", "Version": 1}`)
	ended := func(status string, version, index uint64) allocation {
		return allocation{ID: "aa-b", ClientStatus: status, JobVersion: version, CreateIndex: index}
	}
	two := []allocation{run, run}
	compare(t, []judged{
		{"as it should be", judgeJob(service, two, &deployment{"successful", "", 3}, 3, now), OK, "2 of 2"},
		{"never released in parts", judgeJob(service, two, nil, 3, now), OK, "2 of 2"},
		{"one is missing", judgeJob(service, two[:1], nil, 3, now), Failed, "1 of 2"},
		{"one is stopping", judgeJob(service, []allocation{run, stopping}, nil, 3, now), Failed, "1 of 2"},
		{"one is ill", judgeJob(service, []allocation{run, ill}, nil, 3, now), Failed, "gateway[1]"},
		{"one was restarted", judgeJob(service, []allocation{run, again}, nil, 3, now), Warning, "restarted 2m0s ago (4 times"},
		{"one was restarted long ago", judgeJob(service, []allocation{run, long}, nil, 3, now), OK, ""},
		{"the release failed", judgeJob(service, two, &deployment{"failed", "too slow", 3}, 3, now), Failed, "too slow"},
		{"an older release failed", judgeJob(service, two, &deployment{"failed", "too slow", 2}, 3, now), OK, ""},
		{"a release is under way", judgeJob(service, two, &deployment{"running", "canary", 3}, 3, now), Warning, "canary"},
		{"everywhere", judgeJob(system, two, nil, 2, now), OK, "2 of 2"},
		{"not everywhere", judgeJob(system, two, nil, 3, now), Warning, "2 of 3"},
		{"where it may", judgeJob(some, two, nil, 3, now), OK, "2 of 2"},
		{"not everywhere where it may", judgeJob(full, two, nil, 4, now), Warning, "2 of 3"},
		{"nowhere", judgeJob(some, nil, nil, 3, now), Warning, "0 of 1"},
		{"batch has ended", judgeJob(batch, []allocation{ended("failed", 0, 1), ended("failed", 1, 2), ended("complete", 1, 3)}, nil, 3, now), OK, "well"},
		{"batch has failed", judgeJob(batch, []allocation{ended("complete", 0, 1), ended("failed", 1, 2)}, nil, 3, now), Failed, "nomad alloc logs aa"},
		{"batch runs", judgeJob(batch, []allocation{ended("running", 1, 2)}, nil, 3, now), Warning, "running"},
		{"batch is forgotten", judgeJob(batch, nil, nil, 3, now), OK, "forgotten"},
		{"batch waits", judgeJob(read[job](t, `{"Type": "batch", "Status": "pending"}`), nil, nil, 3, now), Warning, "not placed"},
		{"by the clock", judgeJob(read[job](t, `{"Type": "batch", "Status": "running", "Periodic": {"Enabled": true}}`), nil, nil, 3, now), OK, "asked"},
	})
}

func TestJudgeDoors(t *testing.T) {
	t.Parallel()
	shut, empty, open := try{"/a", 403, "no", nil}, try{"/b", 200, "[]", nil}, try{"/c", 200, `[{"secret": 1}]`, nil}
	agent := func(text string) agentSelf { return read[agentSelf](t, text) }
	good := agent(`{"DebugConfig": {"TLS": {"InternalRPC": {"VerifyIncoming": true, "VerifyServerHostname": true}}}, "Stats": {"serf_lan": {"encrypted": "true"}}}`)
	compare(t, []judged{
		{"all shut", judgeDenied([]try{shut, empty}, false), OK, "2 paths"},
		{"one open", judgeDenied([]try{shut, open}, false), Failed, "/c answers 200"},
		{"one that isn't refused and shows nothing, on one machine", judgeDenied([]try{empty, open}, true), Skipped, "single"},
		{"one open on one machine", judgeDenied([]try{shut, open}, true), Failed, "/c"},
		{"all open on one machine", judgeDenied([]try{open, open}, true), Skipped, "single machine"},
		{"all open in a cluster", judgeDenied([]try{open, open}, false), Failed, "/c"},
		{"no answer proves nothing", judgeDenied([]try{{"/a", 0, "", errors.New("cut")}}, false), Failed, "no answer"},
		{"a server's error proves nothing", judgeDenied([]try{{"/a", 500, "", nil}}, false), Failed, "500"},
		{"plain is refused", judgePlain(400, "Client sent an HTTP request to an HTTPS server.\n", nil), OK, "400"},
		{"plain is cut", judgePlain(0, "", fmt.Errorf("get: %w", errors.New("EOF"))), OK, "EOF"},
		{"plain is answered", judgePlain(200, "", nil), Failed, "200"},
		{"another 400", judgePlain(400, "no such thing", nil), Failed, "400"},
		{"consul is well", judgeAgent(good, false), OK, ""},
		{"consul is open", judgeAgent(agent(`{"DebugConfig": {}}`), false), Failed, "gossip is not encrypted; RPC"},
		{"nomad is well", judgeAgent(agent(`{"config": {"TLSConfig": {"EnableRPC": true, "VerifyServerHostname": true}}, "stats": {"serf": {"encrypted": "true"}}}`), false), OK, ""},
		{"nomad's gossip is open", judgeAgent(agent(`{"config": {"TLSConfig": {"EnableRPC": true, "VerifyServerHostname": true}}, "stats": {"serf": {"encrypted": "false"}}}`), false), Failed, "gossip"},
		{"nothing is said", judgeAgent(agent(`{}`), true), Failed, ""},
		{"door with TLS", judgeDoor("https://flows.example", false), OK, ""},
		{"door without", judgeDoor("http://flows.example", false), Warning, "reads tokens"},
		{"door through a tunnel", judgeDoor("http://127.0.0.1:31000", false), Skipped, "tunnel"},
		{"door of one machine", judgeDoor("http://localhost:8080", true), Skipped, "single"},
	})
}

func TestJudgeHosts(t *testing.T) {
	t.Parallel()
	disk := func(size, used, available uint64, inodes float64) map[string]hostStats {
		return map[string]hostStats{"a": read[hostStats](t, fmt.Sprintf(`{"DiskStats": [{"Device": "/dev/a", "Mountpoint": "/", "Size": %d, "Used": %d, "Available": %d, "InodesUsedPercent": %g}, {"Device": "tmpfs", "Size": 1000, "Used": 1000}]}`,
			size<<30, used<<30, available<<30, inodes))}
	}
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	compare(t, []judged{
		{"clocks agree", judgeClocks(map[string]time.Duration{"a": 5 * time.Second, "b": 5*time.Second + 300*time.Millisecond}), OK, "300ms"}, // it is ours that is wrong
		{"clocks differ", judgeClocks(map[string]time.Duration{"a": -time.Second, "b": time.Second, "c": 0}), Warning, "a and b"},
		{"clocks are far apart", judgeClocks(map[string]time.Duration{"a": 0, "b": time.Minute}), Failed, "1m0s"},
		{"one host", judgeClocks(map[string]time.Duration{"a": -2 * time.Second}), Warning, "2s"},
		{"no clocks", judgeClocks(nil), Skipped, ""},
		{"room", judgeDisks(disk(100, 40, 60, 1)), OK, "a / has 60 %"},
		{"little room", judgeDisks(disk(100, 90, 10, 1)), Warning, "10 %"},
		{"what is kept for root is no room", judgeDisks(disk(100, 86, 4, 1)), Failed, "4 %"},
		{"few files", judgeDisks(disk(100, 40, 60, 97)), Failed, "3 %"},
		{"no disks", judgeDisks(nil), Skipped, ""},
		{"nobody says", judgeDisks(map[string]hostStats{"a": {}}), Skipped, ""},
		{"alike", judgeVersions(map[string]map[string]int{"consul": {"1.22.7": 3}, "worker": {"abc": 2}}), OK, "consul 1.22.7 × 3, worker abc × 2"},
		{"not alike", judgeVersions(map[string]map[string]int{"consul": {"1.22.7": 2, "1.22.6": 1}}), Warning, "1.22.6 × 1 and 1.22.7 × 2"},
		{"nobody to ask", judgeVersions(nil), Skipped, ""},
		{"certificates hold", judgeCertificates(map[string]time.Time{"Consul": now.Add(90 * day), "Nomad": now.Add(80 * day)}, now, 14), OK, "Nomad, on 2027-01-20"},
		{"one ends soon", judgeCertificates(map[string]time.Time{"Consul": now.Add(90 * day), "Nomad": now.Add(5 * day)}, now, 14), Warning, "Nomad ends in 5 days"},
		{"one has ended", judgeCertificates(map[string]time.Time{"Consul": now.Add(5 * day), "Nomad": now.Add(-day)}, now, 14), Failed, "Nomad ended on 2026-10-31"},
		{"none", judgeCertificates(nil, now, 14), Skipped, ""},
	})
}

func TestJudgePlatform(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	compare(t, []judged{
		{"a leader", judgeLeader(scaling{At: now.Add(-time.Second), Leader: "o1"}, now), OK, "o1"},
		{"no leader", judgeLeader(scaling{}, now), Failed, "nobody"},
		{"an old look", judgeLeader(scaling{At: now.Add(-time.Minute), Leader: "o1"}, now), Failed, "1m0s"},
		{"too few", judgeLeader(read[scaling](t, `{"at": "2026-11-01T11:59:59Z", "leader": "o1", "pools": [{"pool": "default", "desired": 3, "placed": 2, "reporting": 2}]}`), now), Warning, "3 wanted, 2 placed"},
		{"workers", judgeWorkers([]worker{{ID: "a", State: "ready", Host: "x"}, {ID: "b", State: "ready", Host: "y"}}), OK, "2 ready, on 2"},
		{"one drains", judgeWorkers([]worker{{ID: "a", State: "ready"}, {ID: "b", State: "draining"}}), Warning, "b is draining"},
		{"none is ready", judgeWorkers([]worker{{ID: "b", State: "draining"}}), Failed, "none"},
		{"queues", judgeQueues(read[queues](t, `{"pools": [{"pool": "default", "queues": [{"name": "t", "kind": "tasks", "consumers": 2}]}], "other": [{"name": "retry", "kind": "retry"}]}`)), OK, "2"},
		{"nobody takes reports", judgeQueues(read[queues](t, `{"other": [{"name": "r", "kind": "reports"}]}`)), Failed, "r: nobody"},
		{"a queue can't be read", judgeQueues(read[queues](t, `{"other": [{"name": "r", "kind": "dead", "error": "away"}]}`)), Failed, "away"},
		{"a backlog", judgeQueues(read[queues](t, `{"pools": [{"pool": "default", "backlog": 5000, "queues": [{"name": "t", "kind": "tasks", "consumers": 2}]}]}`)), Warning, "5000"},
		{"no queues", judgeQueues(queues{}), Failed, ""},
	})
}

func TestJudgeBlow(t *testing.T) {
	t.Parallel()
	struck := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64, err error, limited bool) answer {
		when := struck.Add(time.Duration(seconds * float64(time.Second)))
		return answer{at: when, ended: when.Add(20 * time.Millisecond), err: err, limited: limited}
	}
	away := errors.New("503")
	judge := func(b blow, instances int, all ...answer) finding {
		return (&load{sent: all}).judge(b, struck, struck.Add(2*time.Second), time.Time{}, instances)
	}
	gateway, killed := blow{job: "gateway"}, blow{job: "gateway", kill: true}
	compare(t, []judged{
		{"nobody noticed", judge(blow{job: "worker", kill: true}, 2, at(-1, away, false), at(1, nil, false)), OK, "0 of 1 starts failed"},
		{"refused by the rate limit", judge(blow{job: "worker"}, 2, at(1, away, true)), OK, "0 of 1"},
		{"one of several gateways stops", judge(gateway, 3, at(1, away, false)), Failed, "1 of 1"},
		{"one of several gateways is killed", judge(killed, 3, at(1, away, false), at(1.5, away, false), at(3, nil, false)), Warning, "2 of 3 starts failed over 0.5 s, first: 503"},
		{"the only gateway stops", judge(gateway, 1, at(1, away, false)), Warning, "1 of job gateway"},
		{"a worker is killed and clients notice", judge(blow{job: "worker", kill: true}, 2, at(1, away, false)), Failed, ""},
	})
	compare(t, []judged{
		{"the worst counts", worst(ok("a"), failed("b"), warning("c"), failed("d")), Failed, "b; d"},
		{"nothing but skipped", worst(skipped("a")), Skipped, "a"},
		{"well", worst(skipped("a"), ok("b")), OK, "b"},
	})
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		want string // Consul's URL, or a part of the error
	}{
		{nil, "http://127.0.0.1:8500"},
		{map[string]string{"CONSUL_HTTP_ADDR": "10.0.0.1:8501", "CONSUL_HTTP_SSL": "true"}, "https://10.0.0.1:8501"},
		{map[string]string{"CONSUL_HTTP_ADDR": "https://10.0.0.1:8501/"}, "https://10.0.0.1:8501"},
		{map[string]string{"CONSUL_HTTP_ADDR": "unix:///run/consul"}, "CONSUL_HTTP_ADDR"},
		{map[string]string{"CONSUL_CACERT": "/nowhere"}, "authority"},
		{map[string]string{"CONSUL_CLIENT_CERT": "/nowhere"}, "certificate to show"},
		{map[string]string{"CONSUL_HTTP_TOKEN_FILE": "/nowhere"}, "token"},
	} {
		e, err := Consul(func(name string) string { return c.env[name] })
		got := e.URL
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || err == nil && got != c.want {
			t.Errorf("%v: %s, want %s", c.env, got, c.want)
		}
	}
}

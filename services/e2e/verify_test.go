package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"flowplatform/services/internal/testkit"
)

// placed is an allocation of pretended.
type placed struct {
	id, job  string
	service  *service
	restarts int
}

// pretended is Nomad as far as flowctl verify looks at it, over the processes of a test's platform: what it is asked to stop or kill is really stopped or killed.
type pretended struct {
	mu  sync.Mutex
	all []*placed
}

func pretendNomad(t *testing.T, p *platform) string {
	n := &pretended{all: []*placed{{id: "gateway-0", job: "gateway", service: p.gateway}}}
	for _, o := range p.orchestrators {
		n.all = append(n.all, &placed{id: o.o.Name, job: "orchestrator", service: o})
	}
	for _, w := range p.workers {
		n.all = append(n.all, &placed{id: w.o.Name, job: "worker", service: w})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"ID": "h", "Name": "here", "Status": "ready"}]`)
	})
	mux.HandleFunc("GET /v1/job/{job}/allocations", func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		list := []any{}
		for _, a := range n.all {
			if a.job == r.PathValue("job") {
				list = append(list, obj{"ID": a.id, "Name": a.id, "NodeName": "here", "ClientStatus": "running", "DesiredStatus": "run", "TaskStates": obj{a.job: obj{"State": "running", "Restarts": a.restarts}}})
			}
		}
		if err := json.NewEncoder(w).Encode(list); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("PUT /v1/allocation/{id}/stop", n.with(t, func(a *placed) {
		a.service.stop(false)
		// Its successor is another one.
		next := a.id + "x"
		for i, v := range a.service.o.Env {
			if v == "INSTANCE_ID="+a.id {
				a.service.o.Env[i] = "INSTANCE_ID=" + next
			}
		}
		a.id = next
		a.service.start()
	}))
	mux.HandleFunc("PUT /v1/client/allocation/{id}/signal", n.with(t, func(a *placed) {
		a.service.process().Kill()
		a.restarts++
	}))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func (n *pretended) with(t *testing.T, do func(*placed)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, a := range n.all {
			if a.id == r.PathValue("id") {
				do(a)
				fmt.Fprint(w, `{}`)
				return
			}
		}
		t.Errorf("%s %s: no such allocation", r.Method, r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
	}
}

// verified: flowctl verify runs a flow of each kind on the real platform, stops and kills its parts under load, and takes away what it made.
func verified(t *testing.T, p *platform, _ *target) {
	nomad := pretendNomad(t, p)
	var operator struct{ Token string }
	if status, b := p.request("POST", p.base()+"/api/v1/tokens", p.admin, obj{"name": "verify", "role": "operator", "rateLimit": -1}); status != 201 || json.Unmarshal(b, &operator) != nil {
		t.Fatalf("token: %d %s", status, b)
	}
	cmd := exec.Command(testkit.Build(t, "./services/flowctl"), "-o", "json", "verify", "--disruptive", "--only=platform,flows,drill", "--rate=20", "--settle=1s", "--limit=4m")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "FLOW_SERVER=" + p.base(), "FLOW_TOKEN=" + operator.Token, "NOMAD_ADDR=" + nomad,
		fmt.Sprintf("CONSUL_HTTP_ADDR=127.0.0.1:%d", testkit.FreePort(t))}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	var report struct {
		Count map[string]int
		Rows  []struct{ Area, Check, State, Detail string }
	}
	if e := json.Unmarshal(out, &report); e != nil {
		t.Fatalf("%v %v\n%s\n%s", err, e, out, said.String())
	}
	states := map[string]int{}
	for _, r := range report.Rows {
		states[r.Area]++
		t.Logf("%-8s %s: %s: %s", r.State, r.Area, r.Check, r.Detail)
		switch {
		case r.State == "ok":
		case r.Area == "drill" && strings.HasPrefix(r.Check, "gateway") && r.State == "warning": // there is only one
		case r.Check == "effect: claimed and confirmed" && r.State == "skipped": // these workers have no broker for flows
		case r.Area == "platform" && r.State == "warning": // dead letters of the tests before
		default:
			t.Errorf("%s: %s is %s: %s", r.Area, r.Check, r.State, r.Detail)
		}
	}
	if err != nil || states["platform"] != 5 || states["flows"] != 11 || states["drill"] != 9 {
		t.Errorf("%v, rows %v\n%s", err, states, said.String())
	}
	for _, list := range []string{"/flows?q=flowctl%20verify", "/schedules"} {
		var left struct{ Items []struct{ Name string } }
		p.must(200, "GET", list, nil, &left)
		for _, l := range left.Items {
			if strings.HasPrefix(l.Name, "flowctl verify") {
				t.Errorf("%s is left behind", l.Name)
			}
		}
	}
}

package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"flowplatform/services/internal/testkit"
)

// itself is a job that runs this test binary as a task, with its own identity and its own socket: TestAsATask.
const itself = `
job %q {
  type = "batch"
  group "g" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "orchestrator" {
      driver = "raw_exec"
      config {
        command = %q
        args    = ["-test.run=^TestAsATask$"]
      }
      env {
        FLEET_RESULT = %q
      }
      identity {
        env = true
      }
      resources {
        cpu    = 20
        memory = 64
      }
    }
  }
}`

// said is what the task has found out.
type said struct{ Ready, Group, Scale, Variable string }

// TestAsATask is not a test of its own: TestScaleByWorkloadIdentity runs it as a task.
func TestAsATask(t *testing.T) {
	file := os.Getenv("FLEET_RESULT")
	if file == "" {
		t.Skip("runs as a task of TestScaleByWorkloadIdentity")
	}
	f, err := New(Options{Address: "unix://" + filepath.Join(os.Getenv("NOMAD_SECRETS_DIR"), "api.sock"), Token: os.Getenv("NOMAD_TOKEN")})
	if err != nil {
		t.Fatal(err)
	}
	text := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return "done"
	}
	var s said
	s.Ready = text(f.Ready(t.Context()))
	g, err := f.Group(t.Context(), "default")
	s.Group = text(err)
	s.Scale = text(f.Scale(t.Context(), g, 2, "asked by a task", nil))
	_, _, err = f.client.Variables().Read("nomad/jobs/gateway", nil)
	s.Variable = text(err)
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(file+".new", b, 0o600), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
}

// With ACLs the orchestrator is who its workload identity says, through the socket that Nomad gives each task: it may read jobs and scale them and nothing
// else, and another job's task may not even that.
func TestScaleByWorkloadIdentity(t *testing.T) {
	t.Parallel()
	server, token := testkit.NomadWithACL(t)
	f, err := New(Options{Address: server.Address(), Token: token})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.ACLPolicies().Upsert(&api.ACLPolicy{
		Name: "flow-orchestrator", Rules: "namespace \"default\" {\n  capabilities = [\"list-jobs\", \"read-job\", \"read-job-scaling\", \"scale-job\"]\n}\n",
		JobACL: &api.JobACL{Namespace: "default", JobID: "orchestrator"},
	}, nil); err != nil {
		t.Fatal(err)
	}
	run(t, f, 1, "1s", "1", 10)
	until(t, f, "one runs", func(g Group) bool { return g.Running == 1 && !g.Deploying })

	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name string) (s said) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "said")
		job, err := f.client.Jobs().ParseHCL(fmt.Sprintf(itself, name, program, file), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.client.Jobs().Register(job, nil); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 60*time.Second, "what the task says", func() error {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			return json.Unmarshal(b, &s)
		})
		return s
	}
	if s := ask("gateway"); s.Ready != "done" || !strings.Contains(s.Group, "403") || !strings.Contains(s.Scale, "403") {
		t.Errorf("a job without rights: %+v", s)
	}
	if s := ask("orchestrator"); s.Ready != "done" || s.Group != "done" || s.Scale != "done" || !strings.Contains(s.Variable, "403") {
		t.Errorf("the orchestrator: %+v", s)
	}
	until(t, f, "two run", func(g Group) bool { return g.Running == 2 })

	anonymous, err := New(Options{Address: server.Address()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anonymous.Group(t.Context(), "default"); err == nil || !strings.Contains(err.Error(), "NOMAD_TOKEN") {
		t.Errorf("without a token: %v", err)
	}
}

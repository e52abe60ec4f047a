package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"flowplatform/services/internal/testkit"
)

const sleeper = `
job "worker" {
  type = "service"
  group "worker" {
    count = %d
    update {
      health_check     = "task_states"
      min_healthy_time = %q
      healthy_deadline = "1m"
      progress_deadline = "2m"
    }
    task "worker" {
      driver       = "raw_exec"
      kill_timeout = "1s"
      config {
        command = "/bin/sleep"
        args    = ["3600"]
      }
      env {
        RELEASE = %q
      }
      resources {
        cpu    = 20
        memory = %d
      }
    }
  }
}`

// run registers the job as a release does.
func run(t *testing.T, f *Fleet, count int, healthy, release string, memory int) {
	t.Helper()
	job, err := f.client.Jobs().ParseHCL(fmt.Sprintf(sleeper, count, healthy, release, memory), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.client.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, f *Fleet, what string, ok func(Group) bool) Group {
	t.Helper()
	var last Group
	testkit.Eventually(t, 60*time.Second, what, func() error {
		g, err := f.Group(t.Context(), "default")
		if err != nil {
			return err
		}
		if last = g; !ok(g) {
			return fmt.Errorf("%+v", g)
		}
		return nil
	})
	return last
}

// A real job goes up and down; a deployment refuses a new count for as long as it lasts, and no longer; a machine without room says so.
func TestScaleARealJob(t *testing.T) {
	t.Parallel()
	f, err := New(Options{Address: testkit.Nomad(t).Address()})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Group(t.Context(), "default"); !errors.Is(err, ErrNoJob) {
		t.Fatalf("before there is a job: %v", err)
	}
	settled := func(n int) func(Group) bool {
		return func(g Group) bool { return g.Desired == n && g.Running == n && !g.Deploying }
	}
	run(t, f, 1, "1s", "1", 10)
	g := until(t, f, "one runs", settled(1))

	begun := time.Now()
	if err := f.Scale(t.Context(), g, 3, "a burst", map[string]any{"backlog": 20000}); err != nil {
		t.Fatal(err)
	}
	until(t, f, "three run", func(g Group) bool { return g.Running == 3 })
	t.Logf("three run %v after the count", time.Since(begun))
	if err := f.Scale(t.Context(), g, 5, "by an old look", nil); !errors.Is(err, ErrChanged) && !errors.Is(err, ErrDeploying) {
		t.Errorf("by an old look: %v", err)
	}
	status, _, err := f.client.Jobs().ScaleStatus("worker", nil)
	if err != nil {
		t.Fatal(err)
	}
	if events := status.TaskGroups["worker"].Events; len(events) == 0 || events[0].Message != "a burst" {
		t.Errorf("scaling events: %+v", events)
	}
	g = until(t, f, "the deployment has ended", settled(3))
	if err := f.Scale(t.Context(), g, 1, "idle", nil); err != nil {
		t.Fatal(err)
	}
	g = until(t, f, "one is left", settled(1))
	stale := g
	stale.Index--
	if err := f.Scale(t.Context(), stale, 2, "by an old look", nil); !errors.Is(err, ErrChanged) {
		t.Errorf("by an old look: %v", err)
	}

	// A release: its deployment lasts ten seconds, and refuses us as long.
	run(t, f, 1, "10s", "2", 10)
	g = until(t, f, "the release is under way", func(g Group) bool { return g.Deploying })
	if err := f.Scale(t.Context(), g, 2, "a burst", nil); !errors.Is(err, ErrDeploying) {
		t.Errorf("during a deployment: %v", err)
	}
	refused := 0
	testkit.Eventually(t, 60*time.Second, "the count is taken as soon as the deployment has ended", func() error {
		g, err := f.Group(t.Context(), "default")
		if err == nil {
			err = f.Scale(t.Context(), g, 2, "a burst", nil)
		}
		if err != nil {
			refused++
		}
		return err
	})
	if refused == 0 {
		t.Error("it was not refused once")
	}
	until(t, f, "two run", settled(2))

	// More memory than any machine has.
	run(t, f, 1, "1s", "3", 1<<22)
	g = until(t, f, "there is no room", func(g Group) bool { return g.NoRoom != "" })
	if !strings.Contains(g.NoRoom, "memory") {
		t.Errorf("no room: %q", g.NoRoom)
	}
}

func TestDescribe(t *testing.T) {
	for want, m := range map[string]*api.AllocationMetric{
		"no machine is there that may run it":                                         {},
		"3 machines were looked at, none can take it":                                 {NodesEvaluated: 3},
		"cpu is exhausted on 1 of 2 machines, memory is exhausted on 2 of 2 machines": {NodesEvaluated: 2, DimensionExhausted: map[string]int{"memory": 2, "cpu": 1}},
		`"${attr.kernel.name} = linux" leaves 1 machines out`:                         {NodesEvaluated: 1, ConstraintFiltered: map[string]int{"${attr.kernel.name} = linux": 1}},
	} {
		if got := describe(m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestJob(t *testing.T) {
	f, err := New(Options{Address: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if f.Job("default") != "worker" || f.Job("") != "worker" || f.Job("gpu") != "worker-gpu" {
		t.Error(f.Job("default"), f.Job(""), f.Job("gpu"))
	}
	if _, err := f.Group(t.Context(), "default"); err == nil || !strings.Contains(err.Error(), "NOMAD_ADDR") {
		t.Errorf("nobody there: %v", err)
	}
}

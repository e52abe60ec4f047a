// Package jobs gives Nomad the platform's jobs: rendered from jobs/*.nomad.hcl, planned, run where the plan says that something would change, in stages,
// each waited for until it is healthy in Consul.
package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
)

// Stage is a group of jobs that are given to Nomad together, and must be healthy before the next stage begins. Services
// wait themselves for what isn't there yet; stages exist for what can't: artifacts, and the migrations.
type Stage struct {
	Name string
	Jobs []string
}

// Stages are all jobs, in the order in which they are run.
func Stages() []Stage {
	return []Stage{
		{"Servers", []string{"artifacts", "postgres", "rabbitmq", "redis"}},
		{"Migrations", []string{"migrate"}},
		{"Services", []string{"orchestrator", "gateway", "worker"}},
		// After the gateways, whose coming and going its template tells it of: a signal that meets a task which is just starting ends it.
		{"Front door", []string{"front-door", "prometheus"}},
	}
}

// Stopping are all jobs, in the order in which they are stopped: nothing new comes in, then what runs is finished or handed back while everything that this
// needs is still there.
func Stopping() []Stage {
	return []Stage{
		{"Stop the front door", []string{"front-door"}},
		{"Stop the gateways", []string{"gateway"}},
		{"Stop the workers", []string{"worker"}},
		{"Stop orchestrators", []string{"orchestrator", "migrate"}},
		{"Stop the servers", []string{"prometheus", "redis", "rabbitmq", "postgres", "artifacts"}},
	}
}

// Job is what this program looks at in Nomad's description of one.
type Job struct {
	ID             string
	Type           string
	Status         string
	Stop           bool
	Version        uint64
	JobModifyIndex uint64
	TaskGroups     []struct {
		Name     string
		Count    int
		Services []struct{ Name string }
	}
}

// Runner gives jobs to Nomad and looks at what becomes of them.
type Runner struct {
	ground.Ground
	Renderer
}

// Renderer reads job files.
type Renderer struct {
	Program  string   // nomad
	Root     string   // where jobs/ and configs/ are
	VarFiles []string // values of the jobs' variables; a later file wins
}

// Render turns a job file into what Nomad's API takes.
func (r Renderer) Render(ctx context.Context, name string) (map[string]any, error) {
	args := []string{"job", "run", "-output", "-hcl2-strict=false"}
	for _, file := range r.VarFiles {
		args = append(args, "-var-file="+file)
	}
	cmd := exec.CommandContext(ctx, r.Program, append(args, filepath.Join(r.Root, "jobs", name+".nomad.hcl"))...)
	cmd.Dir = r.Root // file() in a job looks from here
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read jobs/%s.nomad.hcl: %w\n%s", name, err, bytes.TrimSpace(append(stderr.Bytes(), out...)))
	}
	var parsed struct{ Job map[string]any }
	decoder := json.NewDecoder(bytes.NewReader(out))
	decoder.UseNumber()
	if err := decoder.Decode(&parsed); err != nil {
		return nil, fmt.Errorf("read jobs/%s.nomad.hcl: %w", name, err)
	}
	return parsed.Job, nil
}

// Read returns nil when Nomad has no such job.
func (r Runner) Read(ctx context.Context, name string) (*Job, error) {
	var j Job
	err := r.Nomad.Get(ctx, "/v1/job/"+name, &j)
	if api.HasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", name, err)
	}
	return &j, nil
}

// triesAgain is how long a job that was run before, and has failed, is given to do better.
const triesAgain = 45 * time.Second

// Run applies the jobs of a stage and waits until all of them are healthy. It returns the names of those that changed.
func (r Runner) Run(ctx context.Context, p *console.Part, names []string) ([]string, error) {
	var changed []string
	applied := map[string]uint64{} // versions of those that changed
	for _, name := range names {
		p.Doing("%s: plan", name)
		spec, err := r.Render(ctx, name)
		if err != nil {
			return nil, err
		}
		did, err := r.Apply(ctx, p, name, spec)
		if err != nil {
			return nil, err
		}
		if did {
			changed = append(changed, name)
			if applied[name], err = r.given(ctx, name); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range names {
		again := time.Now().Add(triesAgain)
		err := console.Until(ctx, p, 5*time.Minute, func(ctx context.Context) (bool, string, error) {
			if version, mine := applied[name]; mine {
				if err := r.takenBack(ctx, name, version); err != nil {
					return false, "", err
				}
			}
			ok, waitingFor, err := r.Healthy(ctx, name)
			var before *failure
			if errors.As(err, &before) && !slices.Contains(changed, name) && time.Now().Before(again) {
				return false, name + ": tried again after an earlier failure", nil
			}
			return ok, waitingFor, err
		})
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			var explained *api.StatusError
			if !strings.Contains(err.Error(), "allocation") && !errors.As(err, &explained) {
				err = r.explain(ctx, name, err)
			}
			return nil, err
		}
	}
	return changed, nil
}

// Stop stops jobs and waits until their allocations have ended: a worker hands back what it can't finish.
func (r Runner) Stop(ctx context.Context, p *console.Part, names []string) error {
	var stopped []string
	for _, name := range names {
		j, err := r.Read(ctx, name)
		if err != nil {
			return err
		}
		if j == nil {
			continue
		}
		if !j.Stop {
			if err := r.Nomad.Call(ctx, http.MethodDelete, "/v1/job/"+name, nil, nil); err != nil {
				return fmt.Errorf("stop job %s: %w", name, err)
			}
		}
		stopped = append(stopped, name)
	}
	return console.Until(ctx, p, 12*time.Minute, func(ctx context.Context) (bool, string, error) {
		var waiting []string
		for _, name := range stopped {
			list, err := r.Allocations(ctx, name)
			if err != nil {
				return false, "", err
			}
			if slices.ContainsFunc(list, func(a Allocation) bool { return !a.IsTerminal() }) {
				waiting = append(waiting, name)
			}
		}
		return len(waiting) == 0, "waiting for " + strings.Join(waiting, ", "), nil
	})
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/programs"
)

// stage is a group of jobs that are given to Nomad together, and must be healthy before the next stage begins. Services
// wait themselves for what isn't there yet; stages exist for what can't: artifacts, and the migrations.
type stage struct {
	Name string
	Jobs []string
}

func stages() []stage {
	return []stage{
		{"Servers", []string{"artifacts", "postgres", "rabbitmq", "redis"}},
		{"Migrations", []string{"migrate"}},
		{"Services", []string{"orchestrator", "gateway", "worker", "front-door", "prometheus"}},
	}
}

// job is what this program looks at in Nomad's description of one.
type job struct {
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

// jobVariables writes the file with what only this machine knows. Together with jobs/vars/local.hcl it is all that a job
// needs, also by hand, from the top of the checkout:
//
//	nomad job run -preserve-counts -hcl2-strict=false -var-file=jobs/vars/local.hcl \
//	  -var-file=/var/lib/flowplatform/config/jobs.hcl jobs/<name>.nomad.hcl
func (s settings) jobVariables(versions map[string]string, postgresBin string) error {
	var b strings.Builder
	b.WriteString("# Written by make up: what only this machine knows. No secrets.\n")
	fmt.Fprintf(&b, "artifacts_port   = %d\n", s.Ports["ARTIFACTS_PORT"])
	fmt.Fprintf(&b, "artifacts_url    = %q\n", s.url("ARTIFACTS_PORT"))
	fmt.Fprintf(&b, "consul_address   = %q\n", s.address("CONSUL_PORT"))
	fmt.Fprintf(&b, "front_door_port  = %d\n", s.Ports["FRONT_DOOR_PORT"])
	fmt.Fprintf(&b, "nomad_address    = %q\n", s.url("NOMAD_PORT"))
	fmt.Fprintf(&b, "postgres_address = %q\n", s.address("POSTGRES_PORT"))
	fmt.Fprintf(&b, "postgres_bin     = %q\n", postgresBin)
	fmt.Fprintf(&b, "postgres_port    = %d\n", s.Ports["POSTGRES_PORT"])
	fmt.Fprintf(&b, "prometheus_port  = %d\n", s.Ports["PROMETHEUS_PORT"])
	fmt.Fprintf(&b, "rabbitmq_address = %q\n", s.address("RABBITMQ_PORT"))
	fmt.Fprintf(&b, "rabbitmq_port    = %d\n", s.Ports["RABBITMQ_PORT"])
	fmt.Fprintf(&b, "redis_address    = %q\n", s.address("REDIS_PORT"))
	fmt.Fprintf(&b, "redis_port       = %d\n", s.Ports["REDIS_PORT"])
	b.WriteString("\nversions = {\n")
	for _, name := range programs.Released() {
		if versions[name] != "" {
			fmt.Fprintf(&b, "  %-12s = %q\n", name, versions[name])
		}
	}
	b.WriteString("}\n")
	return writeFile(s.path("config", jobVariablesName), []byte(b.String()), 0o644)
}

// render turns a job file into what Nomad's API takes.
func (s settings) render(ctx context.Context, name string) (map[string]any, error) {
	cmd := exec.CommandContext(ctx, s.binary("nomad"), "job", "run", "-output", "-hcl2-strict=false",
		"-var-file="+filepath.Join(s.Root, "jobs", "vars", "local.hcl"),
		"-var-file="+s.path("config", jobVariablesName),
		filepath.Join(s.Root, "jobs", name+".nomad.hcl"))
	cmd.Dir = s.Root // file() in a job looks from here
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+s.url("NOMAD_PORT"))
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

// readJob returns nil when Nomad has no such job.
func (g ground) readJob(ctx context.Context, name string) (*job, error) {
	var j job
	err := g.nomad.get(ctx, "/v1/job/"+name, &j)
	if hasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", name, err)
	}
	return &j, nil
}

// preserveCounts keeps the counts that the autoscaler, or a person, has set since the job was first run.
func preserveCounts(spec map[string]any, current *job) {
	groups, _ := spec["TaskGroups"].([]any)
	for _, g := range groups {
		group, _ := g.(map[string]any)
		for _, existing := range current.TaskGroups {
			if group["Name"] == existing.Name {
				group["Count"] = existing.Count
			}
		}
	}
}

// apply gives Nomad a job if its plan says that something would change. It returns whether it did.
func (g ground) apply(ctx context.Context, p *part, name string, spec map[string]any) (changed bool, err error) {
	current, err := g.readJob(ctx, name)
	if err != nil {
		return false, err
	}
	index := uint64(0)
	if current != nil {
		preserveCounts(spec, current)
		index = current.JobModifyIndex
	}
	diff := ""
	err = until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
		full := ""
		diff, full, err = g.plan(ctx, name, spec)
		// An allocation that is still stopping keeps its ports and its memory for a moment.
		return full == "", fmt.Sprintf("%s: no machine has room for it: %s", name, full), err
	})
	if err != nil {
		return false, err
	}
	if diff == "None" && current != nil && !current.Stop {
		return false, g.revive(ctx, name, current)
	}
	register := map[string]any{"Job": spec, "EnforceIndex": true, "JobModifyIndex": index, "PreserveCounts": true}
	if err := g.nomad.call(ctx, http.MethodPost, "/v1/jobs", register, nil); err != nil {
		return false, fmt.Errorf("run job %s: %w", name, err)
	}
	return true, nil
}

// plan asks Nomad what a job would change: the kind of the difference ("None" for none), and why it could not be placed as
// a whole, "" if it could.
func (g ground) plan(ctx context.Context, name string, spec map[string]any) (diff, full string, err error) {
	var plan struct {
		Diff           struct{ Type string }
		FailedTGAllocs map[string]struct{ DimensionExhausted, ConstraintFiltered map[string]int }
	}
	if err := g.nomad.call(ctx, http.MethodPost, "/v1/job/"+name+"/plan", map[string]any{"Job": spec, "Diff": true}, &plan); err != nil {
		return "", "", fmt.Errorf("plan job %s: %w", name, err)
	}
	var why []string
	for group, failed := range plan.FailedTGAllocs {
		why = append(why, "group "+group)
		why = slices.AppendSeq(why, maps.Keys(failed.DimensionExhausted))
		why = slices.AppendSeq(why, maps.Keys(failed.ConstraintFiltered))
	}
	slices.Sort(why)
	return plan.Diff.Type, strings.Join(slices.Compact(why), ", "), nil
}

// allocation is one placement of a group.
type allocation struct {
	ID                 string
	JobVersion         uint64
	TaskGroup          string
	ClientStatus       string
	DesiredStatus      string
	ClientDescription  string
	DesiredDescription string
	CreateIndex        uint64
	TaskStates         map[string]struct {
		State  string
		Failed bool
		Events []struct{ Type, DisplayMessage string }
	}
}

func (a allocation) isTerminal() bool {
	return slices.Contains([]string{"complete", "failed", "lost"}, a.ClientStatus)
}

func (g ground) allocations(ctx context.Context, name string) ([]allocation, error) {
	var list []allocation
	if err := g.nomad.get(ctx, "/v1/job/"+name+"/allocations", &list); err != nil {
		return nil, fmt.Errorf("list the allocations of job %s: %w", name, err)
	}
	slices.SortFunc(list, func(a, b allocation) int { return int(int64(b.CreateIndex) - int64(a.CreateIndex)) })
	return list, nil
}

// revive makes Nomad try again at once what it has given up, or would only try much later.
func (g ground) revive(ctx context.Context, name string, current *job) error {
	list, err := g.allocations(ctx, name)
	if err != nil {
		return err
	}
	if len(list) == 0 || list[0].ClientStatus != "failed" || (current.Type == "service" && current.Status == "running" && list[0].DesiredStatus != "run") {
		return nil
	}
	again := map[string]any{"JobID": name, "EvalOptions": map[string]any{"ForceReschedule": true}}
	if err := g.nomad.call(ctx, http.MethodPost, "/v1/job/"+name+"/evaluate", again, nil); err != nil {
		return fmt.Errorf("try job %s again: %w", name, err)
	}
	return nil
}

// healthy says whether a job is what it should be: a batch job has ended well, a service passes its checks in Consul as
// often as it is wanted, and its deployment, if there is one, is through.
func (g ground) healthy(ctx context.Context, name string) (bool, string, error) {
	j, err := g.readJob(ctx, name)
	if err != nil || j == nil {
		return false, name + ": not known to Nomad yet", nil // the leader may be changing; until limits the waiting
	}
	if j.Type == "batch" {
		return g.batchDone(ctx, j)
	}
	var deployment *struct {
		Status, StatusDescription string
		JobVersion                uint64
	}
	if err := g.nomad.get(ctx, "/v1/job/"+name+"/deployment", &deployment); err != nil {
		return false, name + ": no word of its deployment", nil
	}
	if deployment != nil && deployment.JobVersion == j.Version {
		switch deployment.Status {
		case "failed", "cancelled":
			return false, "", g.explain(ctx, name, fmt.Errorf("the release %s: %s", deployment.Status, deployment.StatusDescription))
		case "successful":
		default:
			return false, name + ": " + lowerFirst(deployment.StatusDescription), nil
		}
	}
	for _, group := range j.TaskGroups {
		for _, service := range group.Services {
			var passing []struct{}
			if err := g.consul.get(ctx, "/v1/health/service/"+service.Name+"?passing=true", &passing); err != nil {
				return false, name + ": no word from Consul", nil
			}
			if len(passing) < group.Count {
				return false, fmt.Sprintf("%s: %d of %d healthy", name, len(passing), group.Count), nil
			}
		}
	}
	return true, "", nil
}

func (g ground) batchDone(ctx context.Context, j *job) (bool, string, error) {
	list, err := g.allocations(ctx, j.ID)
	if err != nil {
		return false, j.ID + ": no word of its allocation", nil
	}
	for _, a := range list {
		if a.JobVersion != j.Version {
			continue
		}
		switch a.ClientStatus {
		case "complete":
			return true, "", nil
		case "failed", "lost":
			return false, "", g.explain(ctx, j.ID, errors.New("it failed"))
		}
		return false, j.ID + ": " + a.ClientStatus, nil
	}
	// Its allocation may have been collected as garbage since: Nomad knows the job as dead, with nothing left to do.
	return len(list) == 0 && j.Status == "dead", j.ID + ": not placed yet", nil
}

func lowerFirst(s string) string {
	if s == "" {
		return "deploying"
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// explain adds to an error what the newest unhappy allocation of a job went through and said last.
func (g ground) explain(ctx context.Context, name string, cause error) error {
	list, err := g.allocations(ctx, name)
	if err != nil {
		return fmt.Errorf("job %s: %w", name, cause)
	}
	for _, a := range list {
		for task, state := range a.TaskStates {
			if a.ClientStatus == "running" && !state.Failed && len(state.Events) < 6 {
				continue
			}
			var b strings.Builder
			for _, e := range state.Events[max(0, len(state.Events)-6):] {
				fmt.Fprintf(&b, "   | %s: %s\n", e.Type, e.DisplayMessage)
			}
			for _, stream := range []string{"stdout", "stderr"} {
				var logs string
				path := fmt.Sprintf("/v1/client/fs/logs/%s?task=%s&type=%s&origin=end&offset=1500&plain=true", a.ID, task, stream)
				if err := g.nomad.get(ctx, path, &logs); err == nil && logs != "" {
					fmt.Fprintf(&b, "   %s:\n   | %s\n", stream, strings.ReplaceAll(strings.TrimSpace(logs), "\n", "\n   | "))
				}
			}
			return fmt.Errorf("job %s: %w; allocation %s, task %s:\n%s", name, cause, a.ID[:8], task, strings.TrimRight(b.String(), "\n"))
		}
	}
	return fmt.Errorf("job %s: %w", name, cause)
}

// runStage applies the jobs of a stage and waits until all of them are healthy. It returns the names of those that changed.
func (s settings) runStage(ctx context.Context, p *part, g ground, names []string) ([]string, error) {
	var changed []string
	for _, name := range names {
		p.doing("%s: plan", name)
		spec, err := s.render(ctx, name)
		if err != nil {
			return nil, err
		}
		did, err := g.apply(ctx, p, name, spec)
		if err != nil {
			return nil, err
		}
		if did {
			changed = append(changed, name)
		}
	}
	for _, name := range names {
		err := until(ctx, p, 5*time.Minute, func(ctx context.Context) (bool, string, error) { return g.healthy(ctx, name) })
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			var explained *statusError
			if !strings.Contains(err.Error(), "allocation") && !errors.As(err, &explained) {
				err = g.explain(ctx, name, err)
			}
			return nil, err
		}
	}
	return changed, nil
}

// stopJobs stops jobs and waits until their allocations have ended: a worker hands back what it can't finish.
func (g ground) stopJobs(ctx context.Context, p *part, names []string) error {
	var stopped []string
	for _, name := range names {
		j, err := g.readJob(ctx, name)
		if err != nil {
			return err
		}
		if j == nil {
			continue
		}
		if !j.Stop {
			if err := g.nomad.call(ctx, http.MethodDelete, "/v1/job/"+name, nil, nil); err != nil {
				return fmt.Errorf("stop job %s: %w", name, err)
			}
		}
		stopped = append(stopped, name)
	}
	return until(ctx, p, 12*time.Minute, func(ctx context.Context) (bool, string, error) {
		var waiting []string
		for _, name := range stopped {
			list, err := g.allocations(ctx, name)
			if err != nil {
				return false, "", err
			}
			if slices.ContainsFunc(list, func(a allocation) bool { return !a.isTerminal() }) {
				waiting = append(waiting, name)
			}
		}
		return len(waiting) == 0, "waiting for " + strings.Join(waiting, ", "), nil
	})
}

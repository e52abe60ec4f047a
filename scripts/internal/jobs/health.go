package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Healthy says whether a job is what it should be: a batch job has ended well, a service passes its checks in Consul as
// often as it is wanted, and its deployment, if there is one, is through.
func (r Runner) Healthy(ctx context.Context, name string) (bool, string, error) {
	j, err := r.Read(ctx, name)
	if err != nil || j == nil {
		return false, name + ": not known to Nomad yet", nil // the leader may be changing; until limits the waiting
	}
	if j.Type == "batch" {
		return r.batchDone(ctx, j)
	}
	var deployment *struct {
		Status, StatusDescription string
		JobVersion                uint64
	}
	if err := r.Nomad.Get(ctx, "/v1/job/"+name+"/deployment", &deployment); err != nil {
		return false, name + ": no word of its deployment", nil
	}
	failed := ""
	if deployment != nil && deployment.JobVersion == j.Version {
		switch deployment.Status {
		case "failed", "cancelled":
			failed = fmt.Sprintf("the release %s: %s", deployment.Status, deployment.StatusDescription)
		case "successful":
		default:
			return false, name + ": " + lowerFirst(deployment.StatusDescription), nil
		}
	}
	waitingFor := r.passing(ctx, j)
	// A release that failed and was then tried again with success stays a failed one to Nomad.
	if waitingFor != "" && failed != "" {
		return false, "", &failure{r.explain(ctx, name, errors.New(failed))}
	}
	return waitingFor == "", waitingFor, nil
}

// failure says that a job has failed, at the moment or some time ago.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// passing says what a job's services are still waiting for: "" when they pass their checks in Consul as often as they are wanted.
func (r Runner) passing(ctx context.Context, j *Job) string {
	wanted, err := r.wanted(ctx, j)
	if err != nil {
		return j.ID + ": no word of its allocations"
	}
	for _, group := range j.TaskGroups {
		for _, service := range group.Services {
			var passing []struct{}
			if err := r.Consul.Get(ctx, "/v1/health/service/"+service.Name+"?passing=true", &passing); err != nil {
				return j.ID + ": no word from Consul"
			}
			if count := max(group.Count, wanted); len(passing) < count {
				return fmt.Sprintf("%s: %d of %d healthy", j.ID, len(passing), count)
			}
		}
	}
	return ""
}

func (r Runner) batchDone(ctx context.Context, j *Job) (bool, string, error) {
	list, err := r.Allocations(ctx, j.ID)
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
			return false, "", &failure{r.explain(ctx, j.ID, errors.New("it failed"))}
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
func (r Runner) explain(ctx context.Context, name string, cause error) error {
	list, err := r.Allocations(ctx, name)
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
				if err := r.Nomad.Get(ctx, path, &logs); err == nil && logs != "" {
					fmt.Fprintf(&b, "   %s:\n   | %s\n", stream, strings.ReplaceAll(strings.TrimSpace(logs), "\n", "\n   | "))
				}
			}
			return fmt.Errorf("job %s: %w; allocation %s, task %s:\n%s", name, cause, a.ID[:8], task, strings.TrimRight(b.String(), "\n"))
		}
	}
	return fmt.Errorf("job %s: %w", name, cause)
}

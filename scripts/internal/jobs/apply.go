package jobs

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/console"
)

// preserveCounts keeps the counts that the autoscaler, or a person, has set since the job was first run.
func preserveCounts(spec map[string]any, current *Job) {
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

// Apply gives Nomad a job if its plan says that something would change. It returns whether it did.
func (r Runner) Apply(ctx context.Context, p *console.Part, name string, spec map[string]any) (changed bool, err error) {
	current, err := r.Read(ctx, name)
	if err != nil {
		return false, err
	}
	if current, err = r.retype(ctx, p, current, spec); err != nil {
		return false, err
	}
	index := uint64(0)
	if current != nil {
		preserveCounts(spec, current)
		index = current.JobModifyIndex
	}
	diff := ""
	err = console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
		full := ""
		diff, full, err = r.plan(ctx, name, spec)
		// An allocation that is still stopping keeps its ports and its memory for a moment.
		return full == "", fmt.Sprintf("%s: no machine has room for it: %s", name, full), err
	})
	if err != nil {
		return false, err
	}
	if diff == "None" && current != nil && !current.Stop {
		return false, r.revive(ctx, name, current)
	}
	register := map[string]any{"Job": spec, "EnforceIndex": true, "JobModifyIndex": index, "PreserveCounts": true}
	var evaluation struct{ EvalID string }
	if err := r.Nomad.Call(ctx, http.MethodPost, "/v1/jobs", register, &evaluation); err != nil {
		return false, fmt.Errorf("run job %s: %w", name, err)
	}
	return true, r.considered(ctx, p, name, evaluation.EvalID)
}

// considered waits until Nomad has made up its mind about a job: before that there is no deployment, and what passes its checks is the release before.
func (r Runner) considered(ctx context.Context, p *console.Part, name, evaluation string) error {
	if evaluation == "" {
		return nil
	}
	return console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
		var e struct{ Status string }
		if err := r.Nomad.Get(ctx, "/v1/evaluation/"+evaluation, &e); err != nil {
			return false, name + ": no word of its evaluation", nil
		}
		return e.Status != "pending", name + ": Nomad considers it", nil
	})
}

// plan asks Nomad what a job would change: the kind of the difference ("None" for none), and why it could not be placed as
// a whole, "" if it could.
func (r Runner) plan(ctx context.Context, name string, spec map[string]any) (diff, full string, err error) {
	var plan struct {
		Diff           struct{ Type string }
		FailedTGAllocs map[string]struct{ DimensionExhausted, ConstraintFiltered map[string]int }
	}
	if err := r.Nomad.Call(ctx, http.MethodPost, "/v1/job/"+name+"/plan", map[string]any{"Job": spec, "Diff": true}, &plan); err != nil {
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

// Allocation is one placement of a group.
type Allocation struct {
	ID                 string
	NodeID             string
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

func (a Allocation) IsTerminal() bool {
	return slices.Contains([]string{"complete", "failed", "lost"}, a.ClientStatus)
}

func (r Runner) Allocations(ctx context.Context, name string) ([]Allocation, error) {
	var list []Allocation
	if err := r.Nomad.Get(ctx, "/v1/job/"+name+"/allocations", &list); err != nil {
		return nil, fmt.Errorf("list the allocations of job %s: %w", name, err)
	}
	slices.SortFunc(list, func(a, b Allocation) int { return int(int64(b.CreateIndex) - int64(a.CreateIndex)) })
	return list, nil
}

// revive makes Nomad try again at once what it has given up, or would only try much later.
func (r Runner) revive(ctx context.Context, name string, current *Job) error {
	list, err := r.Allocations(ctx, name)
	if err != nil {
		return err
	}
	if len(list) == 0 || list[0].ClientStatus != "failed" || (current.Type == "service" && current.Status == "running" && list[0].DesiredStatus != "run") {
		return nil
	}
	again := map[string]any{"JobID": name, "EvalOptions": map[string]any{"ForceReschedule": true}}
	if err := r.Nomad.Call(ctx, http.MethodPost, "/v1/job/"+name+"/evaluate", again, nil); err != nil {
		return fmt.Errorf("try job %s again: %w", name, err)
	}
	return nil
}

package jobs

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"flowplatform/scripts/internal/console"
)

// wanted is how often a system job should run: once on each host that its constraints leave, so Nomad's placements say it. It is 0 for jobs that say
// their number themselves.
func (r Runner) wanted(ctx context.Context, j *Job) (int, error) {
	if j.Type != "system" {
		return 0, nil
	}
	list, err := r.Allocations(ctx, j.ID)
	if err != nil {
		return 0, err
	}
	hosts := map[string]bool{}
	for _, a := range list {
		if a.DesiredStatus == "run" && a.ClientStatus != "lost" && a.ClientStatus != "unknown" {
			hosts[a.NodeID] = true
		}
	}
	return len(hosts), nil
}

// retype removes a job that is of another type than it shall be: Nomad changes everything about a job but that. It returns what there is now.
func (r Runner) retype(ctx context.Context, p *console.Part, current *Job, spec map[string]any) (*Job, error) {
	kind, _ := spec["Type"].(string)
	if current == nil || kind == "" || current.Type == kind {
		return current, nil
	}
	p.Say("%s is a %s job and becomes a %s job: stopped, and run anew", current.ID, current.Type, kind)
	if err := r.Stop(ctx, p, []string{current.ID}); err != nil {
		return nil, err
	}
	if err := r.Nomad.Call(ctx, http.MethodDelete, "/v1/job/"+current.ID+"?purge=true", nil, nil); err != nil {
		return nil, fmt.Errorf("remove job %s of type %s: %w", current.ID, current.Type, err)
	}
	err := console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
		left, err := r.Read(ctx, current.ID)
		return err == nil && left == nil, "waiting for Nomad to forget " + current.ID, err
	})
	return nil, err
}

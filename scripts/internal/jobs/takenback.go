package jobs

import (
	"context"
	"errors"
	"fmt"
)

// takenBack says whether a version of a job that was given to Nomad failed, and Nomad went back to the one before by itself. What runs then is healthy, and is
// not what was asked for.
func (r Runner) takenBack(ctx context.Context, name string, version uint64) error {
	j, err := r.Read(ctx, name)
	if err != nil || j == nil || j.Version <= version {
		return nil // no word, or nothing newer
	}
	var deployments []struct {
		Status, StatusDescription string
		JobVersion                uint64
	}
	if err := r.Nomad.Get(ctx, "/v1/job/"+name+"/deployments", &deployments); err != nil {
		return nil // asked again
	}
	for _, d := range deployments {
		if d.JobVersion == version && d.Status == "failed" {
			return r.explain(ctx, name, errors.New("the release failed, and what ran before runs again: "+lowerFirst(d.StatusDescription)))
		}
	}
	return nil
}

// given is the version that Nomad gave to what was just applied.
func (r Runner) given(ctx context.Context, name string) (uint64, error) {
	j, err := r.Read(ctx, name)
	if err != nil {
		return 0, err
	}
	if j == nil {
		return 0, fmt.Errorf("job %s was run, and is gone: did somebody stop it?", name)
	}
	return j.Version, nil
}

// Package fleet asks Nomad how many workers there are, and for more or fewer. It is the only package that talks to Nomad.
//
// The workers of the pool "default" are the job "worker", those of another pool the job "worker-<pool>"; the group is called "worker" in all. Down is a
// lower count and nothing else: which allocations stop is Nomad's business, since every worker that is told to stop finishes or hands back what it has.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Errors of Scale, both of which are no failures: the next look decides again.
var (
	// ErrDeploying says that a deployment is under way: Nomad takes no new count until it has ended.
	ErrDeploying = errors.New("Nomad takes no new count while a deployment of the job is under way")
	// ErrChanged says that somebody else has changed the job since it was looked at.
	ErrChanged = errors.New("the job was changed by somebody else meanwhile")
	// ErrNoJob says that Nomad knows no job for the pool.
	ErrNoJob = errors.New("Nomad has no such job")
)

// timeout of one call: the loop looks every second.
const timeout = 3 * time.Second

// Group is the state of a pool's workers in Nomad.
type Group struct {
	Job, Name string
	Index     uint64 // JobModifyIndex, for Scale
	Desired   int
	Running   int
	Starting  int
	Deploying bool
	NoRoom    string // why allocations can't be placed; "": they can
}

// Placed is how many allocations run or are about to.
func (g *Group) Placed() int { return g.Running + g.Starting }

// Fleet is the workers of all pools. Safe for concurrent use.
type Fleet struct {
	client *api.Client
	job    string
	group  string
}

// Options of New.
type Options struct {
	Address string // NOMAD_ADDR
	Token   string // NOMAD_TOKEN
	Job     string // of the pool "default"; "": worker
}

// New makes a client; nothing is asked yet.
func New(o Options) (*Fleet, error) {
	client, err := api.NewClient(&api.Config{Address: o.Address, SecretID: o.Token, TLSConfig: api.DefaultConfig().TLSConfig})
	if err != nil {
		return nil, fmt.Errorf("NOMAD_ADDR: %w", err)
	}
	if o.Job == "" {
		o.Job = "worker"
	}
	return &Fleet{client: client, job: o.Job, group: "worker"}, nil
}

// Job names the job of a pool.
func (f *Fleet) Job(pool string) string {
	if pool == "" || pool == "default" {
		return f.job
	}
	return f.job + "-" + pool
}

// Group looks at the workers of a pool.
func (f *Fleet) Group(ctx context.Context, pool string) (Group, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q := (&api.QueryOptions{}).WithContext(ctx)
	g := Group{Job: f.Job(pool), Name: f.group}
	job, _, err := f.client.Jobs().Info(g.Job, q)
	if err != nil {
		return g, f.explain(g.Job, err)
	}
	// Not ScaleStatus: what it calls JobModifyIndex is another index, and Scale would refuse it.
	if job.JobModifyIndex != nil {
		g.Index = *job.JobModifyIndex
	}
	at := slices.IndexFunc(job.TaskGroups, func(t *api.TaskGroup) bool { return t.Name != nil && *t.Name == f.group })
	if at < 0 || job.Stop != nil && *job.Stop {
		return g, fmt.Errorf("%w: %s has no group %s, or is stopped", ErrNoJob, g.Job, f.group)
	}
	if c := job.TaskGroups[at].Count; c != nil {
		g.Desired = *c
	}
	summary, _, err := f.client.Jobs().Summary(g.Job, q)
	if err != nil {
		return g, f.explain(g.Job, err)
	}
	s := summary.Summary[f.group]
	g.Running, g.Starting = s.Running, s.Starting
	d, _, err := f.client.Jobs().LatestDeployment(g.Job, q)
	if err != nil {
		return g, f.explain(g.Job, err)
	}
	g.Deploying = d != nil && slices.Contains([]string{"running", "paused", "pending", "blocked", "unblocking", "initializing"}, d.Status)
	if s.Queued > 0 {
		if g.NoRoom, err = f.noRoom(g.Job, q); err != nil {
			return g, f.explain(g.Job, err)
		}
	}
	return g, nil
}

// noRoom is what the newest evaluation says about allocations that it could not place.
func (f *Fleet) noRoom(job string, q *api.QueryOptions) (string, error) {
	evaluations, _, err := f.client.Jobs().Evaluations(job, q)
	if err != nil {
		return "", err
	}
	var newest *api.Evaluation
	for _, e := range evaluations {
		if len(e.FailedTGAllocs) > 0 && (newest == nil || e.CreateIndex > newest.CreateIndex) {
			newest = e
		}
	}
	if newest == nil || newest.FailedTGAllocs[f.group] == nil {
		return "", nil
	}
	return describe(newest.FailedTGAllocs[f.group]), nil
}

// describe says in words why nothing could be placed.
func describe(m *api.AllocationMetric) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(m.DimensionExhausted)) {
		parts = append(parts, fmt.Sprintf("%s is exhausted on %d of %d machines", what, m.DimensionExhausted[what], m.NodesEvaluated))
	}
	for _, what := range slices.Sorted(maps.Keys(m.ConstraintFiltered)) {
		parts = append(parts, fmt.Sprintf("%q leaves %d machines out", what, m.ConstraintFiltered[what]))
	}
	if len(parts) == 0 && m.NodesEvaluated == 0 {
		return "no machine is there that may run it"
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%d machines were looked at, none can take it", m.NodesEvaluated)
	}
	return strings.Join(parts, ", ")
}

// Scale asks for another count of a group that was looked at, and gives the reason: it is shown with the job's scaling events.
func (f *Fleet) Scale(ctx context.Context, g Group, count int, reason string, meta map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, _, err := f.client.Jobs().ScaleWithRequest(g.Job, &api.ScalingRequest{
		Count: new(int64(count)), Target: map[string]string{"Job": g.Job, "Group": g.Name}, Message: reason, Meta: meta, JobModifyIndex: g.Index,
	}, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return f.explain(g.Job, err)
	}
	return nil
}

// Ready tells whether Nomad answers.
func (f *Fleet) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var leader string
	if _, err := f.client.Raw().Query("/v1/status/leader", &leader, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("Nomad doesn't answer: %w", err)
	}
	if leader == "" {
		return errors.New("Nomad has no leader")
	}
	return nil
}

func (f *Fleet) explain(job string, err error) error {
	var res api.UnexpectedResponseError
	if !errors.As(err, &res) {
		return fmt.Errorf("fleet: %w (is NOMAD_ADDR right, and Nomad up?)", err)
	}
	body := strings.ToLower(res.Body())
	switch {
	case strings.Contains(body, "active deployment"):
		return ErrDeploying
	case strings.Contains(body, "jobmodifyindex") || strings.Contains(body, "job modify index") || strings.Contains(body, "enforcing job"):
		return ErrChanged
	case res.StatusCode() == 404:
		return fmt.Errorf("%w: %s; nomad job run it, or expect no scaling of its pool", ErrNoJob, job)
	case res.StatusCode() == 403:
		return fmt.Errorf("fleet: Nomad forbids it: NOMAD_TOKEN needs read-job and scale-job in the namespace: %w", err)
	}
	return fmt.Errorf("fleet: %w", err)
}

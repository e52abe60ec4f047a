package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"flowplatform/scripts/internal/running"
	"flowplatform/services/e2e/chaos"
)

// leaderKey is where the orchestrator that leads holds its lock: the value names its allocation.
const leaderKey = "flow/orchestrator/leader"

// breakOne does one fault.
func (p *platform) breakOne(ctx context.Context, s chaos.Step) (chaos.Broken, error) {
	switch s.Kind {
	case chaos.Worker, chaos.Gateway, chaos.RabbitMQ, chaos.Postgres:
		a, err := p.pick(ctx, string(s.Kind), s.Pick)
		if err != nil {
			return chaos.Broken{}, err
		}
		return p.kill(a)
	case chaos.Leader:
		a, err := p.leader(ctx)
		if err != nil {
			return chaos.Broken{}, err
		}
		return p.kill(a)
	case chaos.Redis:
		a, err := p.pick(ctx, "redis", s.Pick)
		if err != nil {
			return chaos.Broken{}, err
		}
		pids, err := p.ProcessesOf(a)
		if err != nil {
			return chaos.Broken{}, err
		}
		return stop(short(a), pids)
	case chaos.Consul:
		pid, err := p.agentPID("consul")
		if err != nil {
			return chaos.Broken{}, err
		}
		return stop("consul", []int{pid})
	}
	return chaos.Broken{}, fmt.Errorf("no such fault: %s", s.Kind)
}

// short is an allocation for people.
func short(a running.Allocation) string { return fmt.Sprintf("%s %.8s", a.Name, a.ID) }

// pick waits until an instance of the job runs: an earlier fault may have hit it a moment ago.
func (p *platform) pick(ctx context.Context, job string, n int) (running.Allocation, error) {
	return until(ctx, func() (running.Allocation, error) {
		list, err := p.Running(ctx, job)
		if err != nil {
			return running.Allocation{}, err
		}
		if len(list) == 0 {
			return running.Allocation{}, fmt.Errorf("no %s is running", job)
		}
		a := list[n%len(list)]
		_, err = p.ProcessesOf(a)
		return a, err
	})
}

// leader finds the orchestrator that holds the lock, once there is one.
func (p *platform) leader(ctx context.Context) (running.Allocation, error) {
	return until(ctx, func() (running.Allocation, error) {
		var entries []struct {
			Session string
			Value   []byte
		}
		if err := p.Consul(ctx, "/v1/kv/"+leaderKey, &entries); err != nil {
			return running.Allocation{}, fmt.Errorf("find who leads: %w", err)
		}
		var lock struct{ Holder string }
		if len(entries) == 0 || entries[0].Session == "" || json.Unmarshal(entries[0].Value, &lock) != nil {
			return running.Allocation{}, errors.New("nobody leads")
		}
		list, err := p.Running(ctx, "orchestrator")
		if err != nil {
			return running.Allocation{}, err
		}
		i := slices.IndexFunc(list, func(a running.Allocation) bool { return a.ID == lock.Holder })
		if i < 0 {
			return running.Allocation{}, fmt.Errorf("%q leads, which is no running allocation of this machine", lock.Holder)
		}
		_, err = p.ProcessesOf(list[i])
		return list[i], err
	})
}

// until asks until there is no error, or the context ends: then it gives the last one that says why.
func until(ctx context.Context, ask func() (running.Allocation, error)) (running.Allocation, error) {
	var why error
	for {
		a, err := ask()
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil && why != nil { // this ask was cut off, the one before was not
			return a, why
		}
		why = err
		select {
		case <-ctx.Done():
			return a, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// kill ends all processes of an allocation's task at once, as a power cut would. Nomad starts them again.
func (p *platform) kill(a running.Allocation) (chaos.Broken, error) {
	pids, err := p.ProcessesOf(a)
	if err != nil {
		return chaos.Broken{What: short(a)}, err
	}
	b := chaos.Broken{What: short(a), At: time.Now()}
	return b, signalAll(pids, syscall.SIGKILL)
}

package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"flowplatform/services/e2e/chaos"
	"flowplatform/services/internal/testkit"
)

// TestChaosShort is make chaos in half a minute, on processes: the same faults, the same load, the same count.
func TestChaosShort(t *testing.T) {
	p := newPlatform(t, size{orchestrators: 2, workers: 2, slots: 200})
	o := chaos.Options{
		Server: p.base(), Token: p.token, Database: p.pg.URL("flow_orchestrator", p.database),
		Seed: 1, Duration: 30 * time.Second, Calm: 4 * time.Second, Settle: 2 * time.Minute, Rate: 15,
		Say: t.Logf,
	}
	var starting sync.WaitGroup
	defer starting.Wait()
	o.Break = func(_ context.Context, s chaos.Step) (chaos.Broken, error) { return p.breakOne(&starting, s) }
	if seed := os.Getenv("FLOW_CHAOS_SEED"); seed != "" {
		if _, err := fmt.Sscan(seed, &o.Seed); err != nil {
			t.Fatalf("FLOW_CHAOS_SEED=%q: %v", seed, err)
		}
	}
	r, err := chaos.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Print(t.Output()); err != nil {
		t.Error(err)
	}
	for _, broken := range r.Broken {
		t.Error(broken)
	}
	if r.Counts.Accepted < 200 {
		t.Errorf("%d were accepted: no load", r.Counts.Accepted)
	}
}

// breakOne does a fault of a drill to these processes.
func (p *platform) breakOne(starting *sync.WaitGroup, s chaos.Step) (chaos.Broken, error) {
	kill := func(v *service) (chaos.Broken, error) {
		b := chaos.Broken{What: v.o.Name, At: time.Now()}
		v.process().Kill()
		return b, nil
	}
	freeze := func(what string, process *testkit.Process) (chaos.Broken, error) {
		b := chaos.Broken{What: what, At: time.Now(), Mend: func(context.Context) error { process.Thaw(); return nil }}
		process.Freeze()
		return b, nil
	}
	again := func(what string, kill func(), start func(testing.TB)) (chaos.Broken, error) {
		b := chaos.Broken{What: what, At: time.Now()}
		kill()
		starting.Go(func() { start(p.t) }) // beside the drill, as Nomad does
		return b, nil
	}
	switch s.Kind {
	case chaos.Worker:
		return kill(p.workers[s.Pick%len(p.workers)])
	case chaos.Leader:
		return kill(p.leader())
	case chaos.Gateway:
		return kill(p.gateway)
	case chaos.RabbitMQ:
		return again("rabbitmq", p.rabbit.Kill, p.rabbit.Start)
	case chaos.Postgres:
		return again("postgres", p.pg.Kill, p.pg.Start)
	case chaos.Consul:
		return freeze("consul", p.consul.Process())
	case chaos.Redis:
		return freeze("redis", p.redis.Process())
	}
	return chaos.Broken{}, fmt.Errorf("no such fault: %s", s.Kind)
}

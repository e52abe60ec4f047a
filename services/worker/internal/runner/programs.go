package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// ErrNoVersion says that the replica doesn't have the flow's version, yet or for ever.
var ErrNoVersion = errors.New("the flow's version isn't on the replica")

// ErrUnfit says that a version can't be compiled by this worker: it is older or newer than the flow.
var ErrUnfit = errors.New("the flow's version can't be compiled by this worker")

// Version names one version of a flow; what it names never changes.
type Version struct {
	Flow   protocol.ID
	Number int
}

// loadTries is how often a load that fails for want of the database is tried before its tasks go back to the broker.
const loadTries = 5

// programs caches compiled versions. Each is loaded once, however many tasks wait for it.
type programs struct {
	load func(ctx context.Context, v Version) (*flow.Program, error)
	max  int

	mu      sync.Mutex
	cached  map[Version]*cachedProgram
	clock   uint64
	loading map[Version][]func(*flow.Program, error)
}

type cachedProgram struct {
	program *flow.Program
	used    uint64
}

func newPrograms(load func(context.Context, Version) (*flow.Program, error), max int) *programs {
	return &programs{load: load, max: max, cached: map[Version]*cachedProgram{}, loading: map[Version][]func(*flow.Program, error){}}
}

// get gives a cached program at once; otherwise then is called later, from another goroutine.
func (p *programs) get(ctx context.Context, v Version, then func(*flow.Program, error)) (*flow.Program, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.cached[v]; c != nil {
		p.clock++
		c.used = p.clock
		return c.program, true
	}
	waiters, under := p.loading[v]
	p.loading[v] = append(waiters, then)
	if !under {
		go p.fetch(ctx, v)
	}
	return nil, false
}

func (p *programs) fetch(ctx context.Context, v Version) {
	program, err := p.try(ctx, v)
	p.mu.Lock()
	waiters := p.loading[v]
	delete(p.loading, v)
	if err == nil {
		p.clock++
		p.cached[v] = &cachedProgram{program: program, used: p.clock}
		p.evict()
	}
	p.mu.Unlock()
	for _, then := range waiters {
		go then(program, err) // it runs its flow: nobody waits for another's pure nodes
	}
}

func (p *programs) try(ctx context.Context, v Version) (*flow.Program, error) {
	var program *flow.Program
	var err error
	for tries := range loadTries {
		if tries > 0 && !rest(ctx, jitter(100*time.Millisecond<<tries)) {
			break
		}
		program, err = p.load(ctx, v)
		if err == nil || errors.Is(err, ErrNoVersion) || errors.Is(err, ErrUnfit) {
			break
		}
	}
	if err == nil && program == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("runner: flow %s version %d: %w", v.Flow, v.Number, err)
	}
	return program, nil
}

// evict keeps the cache within its size: the one not used for the longest goes.
func (p *programs) evict() {
	for len(p.cached) > p.max {
		var oldest Version
		var used uint64
		for v, c := range p.cached {
			if used == 0 || c.used < used {
				oldest, used = v, c.used
			}
		}
		delete(p.cached, oldest)
	}
}

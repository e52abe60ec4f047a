package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	batch  = 1000 // executions that are started with one request: the most that the API takes
	beat   = 200 * time.Millisecond
	calmly = 3 * time.Second // at the minimum so long: then it is over
)

// play sends the burst and watches until the workers are at their minimum again.
func (s *stage) play(ctx context.Context, w *world, r *record, flow string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sent atomic.Int64
	failed := make(chan error, 1)
	var burst sync.WaitGroup
	burst.Go(func() {
		if err := s.burst(ctx, flow, r.Executions, &sent); err != nil {
			failed <- err
		}
	})
	defer burst.Wait()
	defer cancel()

	var mu sync.Mutex
	var seen scaling
	var looking sync.WaitGroup
	looking.Go(func() { // beside the sampling: an answer that takes long doesn't stretch it
		for ctx.Err() == nil {
			if v, err := s.look(ctx); err == nil {
				mu.Lock()
				seen = v
				mu.Unlock()
			}
			select {
			case <-ctx.Done():
			case <-time.After(beat):
			}
		}
	})
	defer looking.Wait()
	defer cancel()

	tick := time.NewTicker(beat / 4)
	defer tick.Stop()
	said := time.Time{}
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("the burst: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		calls, answered, busy := w.now()
		mu.Lock()
		now := seen
		mu.Unlock()
		p := sample{At: time.Now(), Depth: max(0, int(sent.Load())-calls), Busy: busy, Answered: answered}
		if len(now.Pools) > 0 {
			p.Desired, p.Reporting = now.Pools[0].Desired, now.Pools[0].Reporting
		}
		over := r.add(p, now)
		if time.Since(said) >= 2*time.Second {
			said = time.Now()
			fmt.Printf("%6.1f s  %6d wait  %2d workers wanted, %2d at work  %6d ended\n", p.At.Sub(r.Begun).Seconds(), p.Depth, p.Desired, p.Busy, p.Answered)
		}
		if over {
			return nil
		}
	}
}

// burst starts all executions as fast as they are taken. What is refused is asked for again: the key makes it once.
func (s *stage) burst(ctx context.Context, flow string, executions int, sent *atomic.Int64) error {
	var wg sync.WaitGroup
	gate := make(chan struct{}, 4)
	errs := make([]error, (executions+batch-1)/batch)
	for i := range errs {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			inputs := make([]json.RawMessage, min(batch, executions-i*batch))
			for k := range inputs {
				inputs[k] = json.RawMessage("{}")
			}
			sent.Add(int64(len(inputs))) // from now on they may wait
			for try := range 20 {
				headers := map[string]string{"Authorization": "Bearer " + s.token, "Idempotency-Key": fmt.Sprintf("%s-%d", flow, i)}
				if errs[i] = s.send(ctx, http.MethodPost, s.FrontDoor()+"/api/v1/flows/"+flow+"/executions/batch", headers, map[string]any{"inputs": inputs}, nil); errs[i] == nil {
					return
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(try+1) * 50 * time.Millisecond):
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

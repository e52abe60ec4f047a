package runner

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"flowplatform/services/internal/protocol"
)

// Bounds of a batch of claims: a single claim goes at once, those that come within claimEvery of it go together.
const (
	claimEvery    = time.Millisecond
	claimBatch    = 256
	claimInFlight = 4 // requests at a time: one that hangs holds up only its own
)

// asked is a claim with the run that waits for its answer.
type asked struct {
	t     *run
	claim protocol.Claim
}

// claims asks orchestrators for attempts: in batches, again and again until there is an answer or the claim's session is over.
type claims struct {
	r *Runner

	mu    sync.Mutex
	queue []asked
	wake  chan struct{}
}

func (c *claims) add(t *run, claim protocol.Claim) {
	c.mu.Lock()
	c.queue = append(c.queue, asked{t, claim})
	c.mu.Unlock()
	signal(c.wake)
}

func (c *claims) run(ctx context.Context) {
	slots := make(chan struct{}, claimInFlight)
	var wg sync.WaitGroup
	defer wg.Wait()
	p := pace{every: claimEvery}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		if !p.wait(ctx) {
			return
		}
		for {
			select { // a request's slot first, so that what comes meanwhile goes with it
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			batch := c.take()
			if len(batch) == 0 {
				<-slots
				break
			}
			wg.Go(func() {
				defer func() { <-slots }()
				c.ask(ctx, batch)
			})
		}
	}
}

func (c *claims) take() []asked {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), claimBatch)
	batch := slices.Clone(c.queue[:n])
	clear(c.queue[:n]) // the array lives on, and would keep the runs
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	return batch
}

// ask asks until there is an answer; claims whose session is over fall out, their runs ask again under the next one.
func (c *claims) ask(ctx context.Context, batch []asked) {
	m := c.r.metrics
	for tries := 0; ctx.Err() == nil; tries++ {
		if batch = c.wanted(batch); len(batch) == 0 {
			return
		}
		ask := make([]protocol.Claim, len(batch))
		for i, a := range batch {
			ask[i] = a.claim
		}
		began := time.Now()
		try, cancel := context.WithTimeout(ctx, c.r.opts.ClaimTimeout)
		answers, err := c.r.opts.Claims(try, ask)
		cancel()
		m.claimLatency.Observe(time.Since(began).Seconds())
		if err == nil && len(answers) == len(batch) {
			c.answered(batch, answers)
			return
		}
		m.claims.WithLabelValues("unanswered").Add(float64(len(batch)))
		if tries%20 == 0 {
			c.r.log.Warn("no answer to claims: asking another orchestrator, the runs wait", "error", err, "claims", len(batch), "tries", tries+1)
		}
		if tries > 0 { // the second try goes elsewhere at once
			rest(ctx, min(20*time.Millisecond<<min(tries, 5), 500*time.Millisecond))
		}
	}
}

// wanted leaves out claims under a session that isn't the current one any more.
func (c *claims) wanted(batch []asked) []asked {
	current, _ := c.r.window.Current()
	kept := batch[:0:0]
	for _, a := range batch {
		if a.claim.Session == current {
			kept = append(kept, a)
		}
	}
	return kept
}

func (c *claims) answered(batch []asked, answers []protocol.Answer) {
	dead := false
	for i, a := range batch {
		c.r.metrics.claims.WithLabelValues(string(answers[i])).Inc()
		dead = dead || answers[i] == protocol.SessionDead
		a.t.tell(news{kind: newsClaimed, claim: a.claim, answer: answers[i]}, false)
	}
	if dead {
		c.r.opts.SessionDead() // ask for certainty: the renewal tells all runs
	}
}

// pace keeps two sendings apart: the first after a pause goes at once, so that coalescing costs nothing where there is nothing to coalesce.
type pace struct {
	every time.Duration
	last  time.Time
}

// wait waits until the next sending may go. It is false when ctx ended.
func (p *pace) wait(ctx context.Context) bool {
	if d := p.every - time.Since(p.last); d > 0 && !rest(ctx, d) {
		return false
	}
	p.last = time.Now()
	return ctx.Err() == nil
}

// rest sleeps; it is false when ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// jitter spreads d over half of it to all of it.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// signal wakes whoever waits on the channel, or the next one who will.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

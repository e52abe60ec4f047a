package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Percentiles of a set of latencies, in milliseconds.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func percentiles(d []time.Duration) Percentiles {
	if len(d) == 0 {
		return Percentiles{}
	}
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[min(len(d)-1, int(q*float64(len(d))))].Microseconds()) / 1000
	}
	return Percentiles{P50: at(.5), P95: at(.95), P99: at(.99), Max: at(1)}
}

// Result of one phase.
type Result struct {
	Phase     string      `json:"phase"`
	Seconds   float64     `json:"seconds"`
	Requests  int         `json:"requests"`
	Accepted  int         `json:"accepted"` // answered with 200 or 202
	Errors    int         `json:"errors"`
	Latency   Percentiles `json:"latencyMs"`
	FirstFail string      `json:"firstError,omitempty"`
}

// Options of a phase.
type Options struct {
	Server      string
	Token       string
	TLS         *tls.Config // whose certificates to believe; nil: what the system says
	Path        string      // below /api/v1
	Body        string
	Connections int
	Rate        float64 // requests a second over all connections; 0: as fast as they go
	Duration    time.Duration
	Count       int64 // at most so many requests; 0: no such bound
}

type outcome struct {
	took []time.Duration
	ok   int
	bad  int
	fail string
}

// Run sends the same request again and again. At a fixed rate each request has its own due time, and its latency counts from there: a
// stall shows in all the requests that it delayed.
func Run(ctx context.Context, phase string, o Options) (Result, error) {
	t, err := newTarget(o.Server, o.Token, o.TLS)
	if err != nil {
		return Result{}, fmt.Errorf("bench: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	request := t.post(o.Path, o.Body)
	var ticket atomic.Int64
	begun := time.Now()
	outs := make([]outcome, o.Connections)
	var wg sync.WaitGroup
	for i := range outs {
		wg.Go(func() {
			c := conn{address: t.address, tls: t.tls}
			defer c.close()
			for {
				n := ticket.Add(1) - 1
				if o.Count > 0 && n >= o.Count {
					return
				}
				due := time.Now()
				if o.Rate > 0 {
					due = begun.Add(time.Duration(float64(n) / o.Rate * float64(time.Second)))
					select {
					case <-ctx.Done():
						return
					case <-time.After(time.Until(due)):
					}
				} else if ctx.Err() != nil {
					return
				}
				status, body, err := c.do(context.WithoutCancel(ctx), request, 70*time.Second)
				outs[i].add(time.Since(due), status, body, err)
			}
		})
	}
	wg.Wait()
	res := Result{Phase: phase, Seconds: time.Since(begun).Seconds()}
	var all []time.Duration
	for _, out := range outs {
		all = append(all, out.took...)
		res.Accepted += out.ok
		res.Errors += out.bad
		if res.FirstFail == "" {
			res.FirstFail = out.fail
		}
	}
	res.Requests = res.Accepted + res.Errors
	res.Latency = percentiles(all)
	return res, nil
}

func (o *outcome) add(took time.Duration, status int, body []byte, err error) {
	switch {
	case err != nil:
		o.bad++
		if o.fail == "" {
			o.fail = err.Error()
		}
		time.Sleep(50 * time.Millisecond) // not a storm of connections at a server that is away
	case status == 200 || status == 202:
		o.ok++
		o.took = append(o.took, took)
	default:
		o.bad++
		if o.fail == "" {
			o.fail = fmt.Sprintf("%d %.300s", status, body)
		}
	}
}

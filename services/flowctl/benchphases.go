package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/flowctl/internal/load"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// benchFlow is the flow of four nodes that most figures are about.
const benchFlow = `{
  "name": "%s",
  "nodes": [
    {"id": "start", "type": "trigger.manual"},
    {"id": "first", "type": "data.set", "config": {"values": {"n": "{{ input.n + 1 }}", "name": "{{ input.name }}"}}},
    {"id": "large", "type": "logic.if", "config": {"condition": "{{ steps.first.output.n > 100 }}"}},
    {"id": "second", "type": "data.set", "config": {"values": {"n": "{{ steps.first.output.n * 2 }}"}}}
  ],
  "edges": [{"from": "start", "to": "first"}, {"from": "first", "to": "large"}, {"from": "large", "port": "true", "to": "second"}]
}`

const benchInput = `{"n":123,"name":"a name of some length","tags":["a","b","c"]}`

// callsFlow makes two HTTP calls, the second with what the first gave.
const callsFlow = `{
  "name": "%s",
  "nodes": [
    {"id": "start", "type": "trigger.manual"},
    {"id": "order", "type": "http.request", "config": {"method": "GET", "url": "%s/orders/{{ input.n }}"}},
    {"id": "note", "type": "http.request", "config": {"method": "POST", "url": "%s/notes", "body": {"total": "{{ steps.order.output.body.total }}"}}}
  ],
  "edges": [{"from": "start", "to": "order"}, {"from": "order", "to": "note"}]
}`

const delayFlow = `{
  "name": "%s",
  "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "wait", "type": "flow.delay", "config": {"duration": "60s"}}],
  "edges": [{"from": "start", "to": "wait"}]
}`

// bench is one run of the bench command.
type bench struct {
	*benchCommand
	app    *app
	client *client.Client
	db     *store.DB
}

// flow makes a flow of its own for a phase, so that its executions can be counted.
func (b *bench) flow(name, document string, args ...any) (protocol.ID, error) {
	var f flowView
	args = append([]any{"bench " + name + time.Now().UTC().Format(" 2006-01-02 15:04:05.000")}, args...)
	if _, err := b.client.Do(b.app.ctx, "POST", "/flows", fmt.Appendf(nil, document, args...), &f); err != nil {
		return protocol.ID{}, err
	}
	return protocol.ParseID(f.ID)
}

func (b *bench) options(flow protocol.ID, query string) load.Options {
	return load.Options{Server: b.client.Server, Token: b.client.Token, TLS: b.client.TLS, Path: "/flows/" + flow.String() + "/executions" + query, Body: `{"input":` + benchInput + `}`}
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.app.errs, "bench: "+format+" …\n", args...)
}

func (b *bench) measure(rep *benchReport) error {
	flow, err := b.flow("four nodes", benchFlow)
	if err != nil {
		return err
	}
	fixed := func(name, query string, connections int, rate float64, d time.Duration) (load.Result, error) {
		b.say("%s, %s", name, d)
		o := b.options(flow, query)
		o.Connections, o.Rate, o.Duration = connections, rate, d
		return load.Run(b.app.ctx, name, o)
	}
	if _, err := fixed("warm up", "", 8, 200, 3*time.Second); err != nil {
		return err
	}
	if rep.Accept, err = fixed("accept at 300 a second", "", 32, 300, b.Latency); err != nil {
		return err
	}
	if rep.EndToEnd, err = fixed("end to end at 100 a second", "?wait=10s", 32, 100, b.Latency); err != nil {
		return err
	}
	if rep.FullSpeed, err = b.fullSpeed("full speed", flow, b.Duration); err != nil {
		return err
	}
	for _, phase := range []func(*benchReport) error{b.calls, b.backlog, b.delays} {
		if err := phase(rep); err != nil {
			return err
		}
	}
	return nil
}

// fullSpeed sends one request an execution, as fast as they go.
func (b *bench) fullSpeed(name string, flow protocol.ID, d time.Duration) (*benchLoad, error) {
	before, err := b.settle(flow, time.Minute)
	if err != nil {
		return nil, err
	}
	cpu, err := load.ReadCPU()
	if err != nil {
		return nil, err
	}
	b.say("%s, %s", name, d)
	o := b.options(flow, "")
	o.Connections, o.Duration = b.Connections, d
	begun := time.Now()
	out := &benchLoad{}
	if out.Result, err = load.Run(b.app.ctx, name, o); err != nil {
		return nil, err
	}
	answered := time.Now()
	after, err := b.settle(flow, 5*time.Minute)
	if err != nil {
		return nil, err
	}
	out.DrainSeconds = time.Since(answered).Seconds()
	out.Final, out.Succeeded = after.final-before.final, after.succeeded-before.succeeded
	out.Lost = out.Accepted - out.Final
	out.PerSecond = float64(out.Final) / time.Since(begun).Seconds()
	used, err := load.ReadCPU()
	if err != nil {
		return nil, err
	}
	out.CPUMillis = used.Since(cpu, out.Final)
	for _, ms := range out.CPUMillis {
		out.CPUTotal += ms
	}
	return out, nil
}

// calls measures flows with two HTTP calls to a server of ours, which shares the machine as well.
func (b *bench) calls(rep *benchReport) error {
	if b.Calls <= 0 {
		return nil
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	answer := []byte(`{"total":140,"currency":"EUR"}`)
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	})}
	go func() { _ = srv.Serve(lis) }()
	defer srv.Close()
	url := "http://" + lis.Addr().String()
	flow, err := b.flow("two calls", callsFlow, url, url)
	if err != nil {
		return err
	}
	rep.Calls, err = b.fullSpeed("two HTTP calls", flow, b.Calls)
	return err
}

// accept starts n executions in batches of 1,000, four at a time.
func (b *bench) accept(flow protocol.ID, n int) (load.Result, error) {
	size := min(n, 1000)
	o := b.options(flow, "/batch")
	o.Body = `{"inputs":[` + strings.TrimSuffix(strings.Repeat(benchInput+",", size), ",") + `]}`
	o.Connections, o.Duration, o.Count = 4, 2*time.Minute, int64((n+size-1)/size)
	res, err := load.Run(b.app.ctx, "batches", o)
	if err == nil && res.Errors > 0 {
		err = fmt.Errorf("bench: a batch was not accepted: %s", res.FirstFail)
	}
	res.Accepted *= size
	return res, err
}

// backlog accepts much faster than it can be run, and measures how the rest drains.
func (b *bench) backlog(rep *benchReport) error {
	if b.Backlog <= 0 {
		return nil
	}
	flow, err := b.flow("backlog", benchFlow)
	if err != nil {
		return err
	}
	b.say("a backlog of %d", b.Backlog)
	res, err := b.accept(flow, b.Backlog)
	if err != nil {
		return err
	}
	at := time.Now()
	left, err := b.count(flow)
	if err != nil {
		return err
	}
	end, err := b.settle(flow, 5*time.Minute)
	if err != nil {
		return err
	}
	out := &benchBacklog{Accepted: res.Accepted, AcceptSeconds: res.Seconds, Open: left.open, DrainSeconds: time.Since(at).Seconds(), Lost: res.Accepted - end.final}
	out.PerSecond = float64(out.Open-end.open) / out.DrainSeconds
	rep.Backlog = out
	return nil
}

// delays lets many executions wait at the same time: they must cost rows, and no memory.
func (b *bench) delays(rep *benchReport) error {
	if b.Delays <= 0 {
		return nil
	}
	flow, err := b.flow("delays", delayFlow)
	if err != nil {
		return err
	}
	b.say("%d delays of a minute", b.Delays)
	out := &benchDelays{}
	if out.MemoryMB, err = load.ReadMemory(); err != nil {
		return err
	}
	begun := time.Now()
	res, err := b.accept(flow, b.Delays)
	if err != nil {
		return err
	}
	for until := begun.Add(55 * time.Second); time.Now().Before(until) && out.Waiting < res.Accepted; {
		states, err := b.db.CountStates(b.app.ctx, flow)
		if err != nil {
			return fmt.Errorf("bench: count: %w", err)
		}
		out.Waiting = max(out.Waiting, states[protocol.Waiting])
		if err := rest(b.app.ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	if err := rest(b.app.ctx, 10*time.Second); err != nil { // what starting them cost is collected
		return err
	}
	if out.WaitingMB, err = load.ReadMemory(); err != nil {
		return err
	}
	end, err := b.settle(flow, 5*time.Minute)
	if err != nil {
		return err
	}
	out.Seconds, out.Succeeded, out.Lost = time.Since(begun).Seconds(), end.succeeded, res.Accepted-end.final
	rep.Delays = out
	return nil
}

type counted struct{ open, final, succeeded int }

// count counts the executions of a flow.
func (b *bench) count(flow protocol.ID) (counted, error) {
	states, err := b.db.CountStates(b.app.ctx, flow)
	if err != nil {
		return counted{}, fmt.Errorf("bench: count: %w", err)
	}
	n := counted{succeeded: states[protocol.Succeeded]}
	for state, count := range states {
		if state.Final() {
			n.final += count
		} else {
			n.open += count
		}
	}
	return n, nil
}

// settle counts until none is open any more, or the limit is over.
func (b *bench) settle(flow protocol.ID, limit time.Duration) (counted, error) {
	ctx, cancel := context.WithTimeout(b.app.ctx, limit)
	defer cancel()
	for {
		n, err := b.count(flow)
		if err != nil || n.open == 0 || ctx.Err() != nil {
			return n, err
		}
		if err := rest(ctx, 100*time.Millisecond); err != nil && b.app.ctx.Err() != nil {
			return n, err
		}
	}
}

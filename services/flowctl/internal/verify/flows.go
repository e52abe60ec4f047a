package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/internal/store"
)

const (
	// prefix marks what is ours among the user's flows.
	prefix = "flowctl verify "
	// stale is when what an earlier run has left, because it was killed, is taken away.
	stale = time.Hour
	// runWait is how long an execution may take before a check says that it hangs.
	runWait = 20 * time.Second
)

// flows runs a flow of each kind. Each check makes its flow, runs it and says what came out; all flows are deleted at the end.
func (r *run) flows(ctx context.Context) {
	w := newWorkshop(r.o.API)
	for _, c := range []struct {
		name string
		do   func(context.Context) finding
	}{
		{"manual: branches, loop, code", w.manual},
		{"effect: claimed and confirmed", w.effect},
		{"delay", w.delay},
		{"signal", w.signal},
		{"approval", w.approval},
		{"call of another flow", w.call},
		{"webhook", w.webhook},
		{"schedule", w.schedule},
		{"limit", w.limit},
		{"cancel", w.cancel},
	} {
		r.check(ctx, "flows", c.name, c.do)
	}
	r.cleaned(ctx, "flows", w)
}

// cleaned takes away what a workshop has made, also when the time is up.
func (r *run) cleaned(ctx context.Context, area string, w *workshop) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	n, err := w.clean(ctx)
	if err != nil {
		r.row(area, "cleaned up", begun, failed("%v; flows and schedules named %q… are ours and may be deleted", err, strings.TrimSpace(prefix)))
		return
	}
	r.row(area, "cleaned up", begun, ok("%d flows and schedules deleted; their executions stay as history", n))
}

// workshop makes flows and executions, and knows what to take away.
type workshop struct {
	api       *client.Client
	mark      string // of this run, part of every name
	flows     []string
	schedules []string
	open      []string // executions that may still wait
}

func newWorkshop(api *client.Client) *workshop {
	id := store.NewID().String()
	return &workshop{api: api, mark: id[len(id)-12:]}
}

// execution is what is looked at of one.
type execution struct {
	ID, Status string
	Output     json.RawMessage
	Error      *struct{ Code, Message string }
	CreatedAt  time.Time
	FinishedAt time.Time
}

func (e execution) String() string {
	if e.Error != nil {
		return fmt.Sprintf("execution %s %s: %s (%s)", e.ID, e.Status, e.Error.Message, e.Error.Code)
	}
	return fmt.Sprintf("execution %s %s", e.ID, e.Status)
}

func (e execution) final() bool {
	return e.Status == "succeeded" || e.Status == "failed" || e.Status == "cancelled" || e.Status == "timed_out"
}

type (
	object = map[string]any
	list   = []any
)

// chain is a document whose nodes follow each other.
func chain(nodes ...object) object {
	var edges list
	for i := 1; i < len(nodes); i++ {
		edges = append(edges, object{"from": nodes[i-1]["id"], "to": nodes[i]["id"]})
	}
	return object{"nodes": nodes, "edges": edges}
}

func step(id, kind string, config object) object {
	n := object{"id": id, "type": kind}
	if config != nil {
		n["config"] = config
	}
	return n
}

// flow makes one.
func (w *workshop) flow(ctx context.Context, name string, doc object) (string, error) {
	doc["name"] = prefix + w.mark + " " + name
	doc["description"] = "Made by flowctl verify, which deletes it again."
	if doc["settings"] == nil {
		doc["settings"] = object{}
	}
	doc["settings"].(object)["timeout"] = "5m" // whatever becomes of us, it ends
	var f struct{ ID string }
	if _, err := w.api.Do(ctx, http.MethodPost, "/flows", doc, &f); err != nil {
		return "", fmt.Errorf("make the flow: %w", err)
	}
	w.flows = append(w.flows, f.ID)
	return f.ID, nil
}

// start begins an execution and waits for its end for as long as wait says.
func (w *workshop) start(ctx context.Context, flow string, input any, wait time.Duration) (e execution, err error) {
	path := "/flows/" + flow + "/executions"
	if wait > 0 {
		path += "?wait=" + wait.String()
	}
	if _, err = w.api.Do(ctx, http.MethodPost, path, object{"input": input}, &e); err != nil {
		return e, fmt.Errorf("start it: %w", err)
	}
	if !e.final() {
		w.open = append(w.open, e.ID)
	}
	return e, nil
}

// run makes a flow and runs it to its end.
func (w *workshop) run(ctx context.Context, name string, doc object, input any) (execution, error) {
	id, err := w.flow(ctx, name, doc)
	if err != nil {
		return execution{}, err
	}
	return w.start(ctx, id, input, runWait)
}

// is waits until an execution is as it should be.
func (w *workshop) is(ctx context.Context, id, status string) (e execution, err error) {
	ctx, cancel := context.WithTimeout(ctx, runWait)
	defer cancel()
	err = until(ctx, 50*time.Millisecond, func() error {
		e = execution{}
		if _, err := w.api.Do(ctx, http.MethodGet, "/executions/"+id, nil, &e); err != nil {
			return err
		}
		if e.Status != status {
			return fmt.Errorf("%s, not %s within %s", e, status, runWait)
		}
		return nil
	})
	return e, err
}

// gave compares what an execution gave with what it should, as JSON.
func gave(e execution, err error, want string) finding {
	if err != nil {
		return failed("%v", err)
	}
	if e.Status != "succeeded" {
		return failed("%s", e)
	}
	var a, b bytes.Buffer
	if json.Compact(&a, e.Output) != nil || json.Compact(&b, []byte(want)) != nil || a.String() != b.String() {
		return failed("execution %s gave %s in place of %s", e.ID, e.Output, want)
	}
	return ok("ran in %s", e.FinishedAt.Sub(e.CreatedAt).Round(time.Millisecond))
}

func (w *workshop) manual(ctx context.Context) finding {
	doc := object{
		"nodes": list{step("start", "trigger.manual", nil), step("large", "logic.if", object{"condition": "{{ input.sum > 100 }}"}),
			step("each", "logic.foreach", object{"items": "{{ input.items }}"}), object{"id": "twice", "type": "data.code", "parent": "each", "config": object{"code": "return item * 2"}},
			step("small", "data.set", object{"values": object{"small": true}}), step("end", "data.set", object{"values": object{"doubled": "{{ steps.each.output }}", "exact": "{{ input.exact }}"}})},
		"edges": list{object{"from": "start", "to": "large"}, object{"from": "large", "port": "true", "to": "each"}, object{"from": "large", "port": "false", "to": "small"}, object{"from": "each", "to": "end"}},
	}
	e, err := w.run(ctx, "manual", doc, object{"sum": 200, "items": list{1, 2, 3}, "exact": json.Number("9007199254740993")})
	return gave(e, err, `{"doubled":[2,4,6],"exact":9007199254740993}`)
}

// effect publishes to an exchange that every broker has, where nobody listens: a step that is claimed before and confirmed after.
func (w *workshop) effect(ctx context.Context) finding {
	e, err := w.run(ctx, "effect", chain(step("start", "trigger.manual", nil), published(), step("end", "data.set", object{"values": object{"ok": "{{ steps.publish.output.confirmed }}"}})), nil)
	if err == nil && e.Error != nil && strings.Contains(e.Error.Message, "FLOW_NODES_RABBITMQ_URL") {
		return skipped("the workers have no broker for flows; an effect of another kind would have to leave the cluster")
	}
	return gave(e, err, `{"ok":true}`)
}

func published() object {
	return step("publish", "amqp.publish", object{"exchange": "amq.topic", "routingKey": "flowctl.verify", "body": "nobody listens"})
}

func (w *workshop) delay(ctx context.Context) finding {
	const long = 1200 * time.Millisecond // over a second it is a row and the leader's timer, not a worker's
	e, err := w.run(ctx, "delay", chain(step("start", "trigger.manual", nil), step("wait", "flow.delay", object{"duration": long.String()})), nil)
	f := gave(e, err, "null")
	if took := e.FinishedAt.Sub(e.CreatedAt); f.State == OK && took < long {
		return failed("a delay of %s took %s", long, took)
	} else if f.State == OK && took > long+5*time.Second {
		return warning("a delay of %s took %s", long, took)
	}
	return f
}

func (w *workshop) signal(ctx context.Context) finding {
	id, err := w.flow(ctx, "signal", chain(step("start", "trigger.manual", nil), step("wait", "flow.signal", object{"name": "flowctl-verify", "key": w.mark, "timeout": "1m"})))
	if err != nil {
		return failed("%v", err)
	}
	e, err := w.start(ctx, id, nil, 0)
	if err == nil {
		_, err = w.is(ctx, e.ID, "waiting")
	}
	if err == nil {
		_, err = w.api.Do(ctx, http.MethodPost, "/signals/flowctl-verify", object{"key": w.mark, "data": object{"n": 7}}, nil)
	}
	if err == nil {
		e, err = w.is(ctx, e.ID, "succeeded")
	}
	return gave(e, err, `{"n":7}`)
}

func (w *workshop) approval(ctx context.Context) finding {
	id, err := w.flow(ctx, "approval", object{
		"nodes": list{step("start", "trigger.manual", nil), step("decide", "flow.approval", object{"title": "flowctl verify decides this itself", "expires": "1m"}), step("yes", "data.set", object{"values": object{"approved": true}})},
		"edges": list{object{"from": "start", "to": "decide"}, object{"from": "decide", "port": "approved", "to": "yes"}},
	})
	if err != nil {
		return failed("%v", err)
	}
	e, err := w.start(ctx, id, nil, 0)
	if err == nil {
		_, err = w.is(ctx, e.ID, "waiting")
	}
	if err == nil {
		_, err = w.api.Do(ctx, http.MethodPost, "/executions/"+e.ID+"/approvals/decide", object{"decision": "approve"}, nil)
	}
	if err == nil {
		e, err = w.is(ctx, e.ID, "succeeded")
	}
	return gave(e, err, `{"approved":true}`)
}

func (w *workshop) call(ctx context.Context) finding {
	child, err := w.flow(ctx, "called", chain(step("start", "trigger.manual", nil), step("end", "data.set", object{"values": object{"n": "{{ input.n + 1 }}"}})))
	if err != nil {
		return failed("%v", err)
	}
	e, err := w.run(ctx, "caller", chain(step("start", "trigger.manual", nil), step("call", "flow.call", object{"flow": child, "input": object{"n": "{{ input.n }}"}})), object{"n": 41})
	return gave(e, err, `{"n":42}`)
}

func (w *workshop) webhook(ctx context.Context) finding {
	path := "flowctl-verify-" + w.mark
	_, err := w.flow(ctx, "webhook", chain(step("hook", "trigger.webhook", object{"path": path, "respond": "flow"}), step("answer", "flow.respond", object{"status": 201, "body": object{"got": "{{ input.body.n }}"}})))
	if err != nil {
		return failed("%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, runWait)
	defer cancel()
	begun := time.Now()
	var status int
	var body string
	err = until(ctx, 100*time.Millisecond, func() error { // another gateway may need a moment to know of it
		if status, body, err = w.post(ctx, "/hooks/"+path, `{"n":7}`); err != nil {
			return err
		}
		if status == http.StatusNotFound {
			return errors.New("the front door knows no such webhook")
		}
		return nil
	})
	if err != nil {
		return failed("%v", err)
	}
	if status != http.StatusCreated || strings.TrimSpace(body) != `{"got":7}` {
		return failed("the flow's own answer would be 201 with {\"got\":7}, it was %d %s", status, body)
	}
	return ok("answered by the flow within %s", time.Since(begun).Round(time.Millisecond))
}

func (w *workshop) post(ctx context.Context, path, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api.Server+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := w.api.Plain(runWait).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return res.StatusCode, string(b), err
}

// schedule fires every second until it is deleted, or, should we be killed, for a minute.
func (w *workshop) schedule(ctx context.Context) finding {
	id, err := w.flow(ctx, "schedule", chain(step("start", "trigger.manual", nil), step("end", "data.set", object{"values": object{"at": "{{ execution.labels.scheduledAt }}"}})))
	if err != nil {
		return failed("%v", err)
	}
	begun := time.Now()
	var s struct{ ID string }
	if _, err := w.api.Do(ctx, http.MethodPost, "/schedules", object{"name": prefix + w.mark, "flowId": id, "cron": "* * * * * *", "endAt": begun.Add(time.Minute).UTC().Format(time.RFC3339)}, &s); err != nil {
		return failed("make the schedule: %v", err)
	}
	w.schedules = append(w.schedules, s.ID)
	ctx, cancel := context.WithTimeout(ctx, runWait)
	defer cancel()
	var page struct{ Items []execution }
	err = until(ctx, 200*time.Millisecond, func() error {
		if _, err := w.api.Do(ctx, http.MethodGet, "/executions?limit=10&status=succeeded&flowId="+id, nil, &page); err != nil {
			return err
		}
		if len(page.Items) < 2 {
			return fmt.Errorf("a schedule of every second has started %d executions that succeeded, after %s", len(page.Items), time.Since(begun).Round(time.Second))
		}
		return nil
	})
	if err != nil {
		return failed("%v", err)
	}
	return ok("fired twice within %s of being made", time.Since(begun).Round(100*time.Millisecond))
}

// limit lets one of a key begin. The second begins only when the first has ended.
func (w *workshop) limit(ctx context.Context) finding {
	doc := chain(step("start", "trigger.manual", nil), step("wait", "flow.signal", object{"name": "go", "timeout": "1m"}))
	doc["settings"] = object{"concurrency": list{object{"key": "{{ input.key }}", "limit": 1}}}
	id, err := w.flow(ctx, "limit", doc)
	if err != nil {
		return failed("%v", err)
	}
	first, err := w.start(ctx, id, object{"key": "a"}, 0)
	if err == nil {
		_, err = w.is(ctx, first.ID, "waiting")
	}
	var second, other execution
	if err == nil {
		second, err = w.start(ctx, id, object{"key": "a"}, 0)
	}
	if err == nil {
		if other, err = w.start(ctx, id, object{"key": "b"}, 0); err == nil { // accepted after the second, and not held
			_, err = w.is(ctx, other.ID, "waiting")
		}
	}
	if err == nil {
		var held execution
		if held, err = w.is(ctx, second.ID, "queued"); err != nil {
			return failed("two of a key whose limit is 1 have begun: %s", held)
		}
	}
	for _, e := range []execution{first, second, other} {
		if err == nil {
			_, err = w.is(ctx, e.ID, "waiting")
		}
		if err == nil {
			_, err = w.api.Do(ctx, http.MethodPost, "/executions/"+e.ID+"/signals/go", object{}, nil)
		}
		if err == nil {
			_, err = w.is(ctx, e.ID, "succeeded")
		}
	}
	if err != nil {
		return failed("%v", err)
	}
	return ok("the second of a key began when the first had ended, another key at once")
}

func (w *workshop) cancel(ctx context.Context) finding {
	id, err := w.flow(ctx, "cancel", chain(step("start", "trigger.manual", nil), step("wait", "flow.delay", object{"duration": "4m"})))
	if err != nil {
		return failed("%v", err)
	}
	e, err := w.start(ctx, id, nil, 0)
	if err == nil {
		_, err = w.is(ctx, e.ID, "waiting")
	}
	begun := time.Now()
	if err == nil {
		_, err = w.api.Do(ctx, http.MethodPost, "/executions/"+e.ID+"/cancel", nil, nil)
	}
	if err == nil {
		_, err = w.is(ctx, e.ID, "cancelled")
	}
	if err != nil {
		return failed("%v", err)
	}
	return ok("ended %s after it was asked to", time.Since(begun).Round(time.Millisecond))
}

// clean deletes what this run has made, and what one that was killed an hour ago or earlier has left. Executions that still wait are cancelled.
func (w *workshop) clean(ctx context.Context) (int, error) {
	var problems []error
	n := 0
	remove := func(path string) {
		status, err := w.api.Do(ctx, http.MethodDelete, path, nil, nil)
		if err != nil && status != http.StatusNotFound {
			problems = append(problems, err)
			return
		}
		n++
	}
	for _, id := range w.schedules {
		remove("/schedules/" + id)
	}
	for _, id := range w.open {
		var e execution
		if _, err := w.api.Do(ctx, http.MethodGet, "/executions/"+id, nil, &e); err == nil && !e.final() {
			if _, err := w.api.Do(ctx, http.MethodPost, "/executions/"+id+"/cancel", nil, nil); err != nil {
				problems = append(problems, err)
			}
		}
	}
	for _, id := range w.flows {
		remove("/flows/" + id)
	}
	w.flows, w.schedules, w.open = nil, nil, nil
	var page struct {
		Items []struct {
			ID, Name  string
			CreatedAt time.Time
		}
	}
	if _, err := w.api.Do(ctx, http.MethodGet, "/flows?limit=200&q="+url.QueryEscape(strings.TrimSpace(prefix)), nil, &page); err != nil {
		problems = append(problems, err)
	}
	for _, f := range page.Items {
		if strings.HasPrefix(f.Name, prefix) && time.Since(f.CreatedAt) > stale {
			remove("/flows/" + f.ID)
		}
	}
	return n, errors.Join(problems...)
}

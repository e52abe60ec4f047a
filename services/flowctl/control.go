package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"flowplatform/services/flowctl/internal/client"
)

// bulkChoice is how commands name executions: one is done at once, several and filters become a job.
type bulkChoice struct {
	IDs    []string      `arg:"" optional:"" name:"id" help:"Ids of executions."`
	Flow   string        `help:"All of this flow (name or id) that it can be done to."`
	Status []string      `help:"Only those in these states, by comma." enum:"queued,running,waiting,succeeded,failed,cancelled,timed_out" placeholder:"STATUS"`
	Since  time.Duration `help:"Only those accepted within this time, like 1h." placeholder:"DURATION"`
	Label  []string      `help:"Only those with this label; several: all of them." sep:"none" placeholder:"KEY=VALUE"`
	Query  string        `short:"q" help:"Text in the id, the trigger, the labels or the flow's name."`
	All    bool          `help:"All that it can be done to."`
	Rate   int           `help:"Executions a second." default:"500"`
	Wait   bool          `help:"Wait until the job is finished, and show how far it is."`
}

func (b *bulkChoice) filtered() bool {
	return b.Flow != "" || len(b.Status) > 0 || b.Since > 0 || len(b.Label) > 0 || b.Query != "" || b.All
}

func (b *bulkChoice) body() (map[string]any, error) {
	switch {
	case len(b.IDs) > 0 && b.filtered():
		return nil, errors.New("name ids, or a filter, not both")
	case len(b.IDs) > 0:
		return map[string]any{"ids": b.IDs, "rate": b.Rate}, nil
	case !b.filtered():
		return nil, errors.New("name ids, or --flow, --status, --since, --label, --query, or --all")
	}
	filter := map[string]any{}
	if b.Flow != "" {
		filter["flowId"] = b.Flow
	}
	if len(b.Status) > 0 {
		filter["status"] = b.Status
	}
	if b.Since > 0 {
		filter["since"] = time.Now().Add(-b.Since).UTC()
	}
	if b.Query != "" {
		filter["q"] = b.Query
	}
	labels := map[string]string{}
	for _, s := range b.Label {
		k, v, ok := cutLabel(s)
		if !ok {
			return nil, fmt.Errorf("--label %q is not KEY=VALUE", s)
		}
		labels[k] = v
	}
	if len(labels) > 0 {
		filter["label"] = labels
	}
	return map[string]any{"filter": filter, "rate": b.Rate}, nil
}

func cutLabel(s string) (k, v string, ok bool) {
	for i := range s {
		if s[i] == '=' {
			return s[:i], s[i+1:], i > 0
		}
	}
	return "", "", false
}

type bulkView struct {
	ID         string    `json:"id"`
	Action     string    `json:"action"`
	Status     string    `json:"status"`
	AskedBy    string    `json:"askedBy"`
	Rate       int       `json:"rate"`
	Total      int       `json:"total"`
	Done       int       `json:"done"`
	Failed     int       `json:"failed"`
	Skipped    int       `json:"skipped"`
	CreatedAt  time.Time `json:"createdAt"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	StoppedBy  string    `json:"stoppedBy,omitempty"`
}

func (v *bulkView) line() string {
	return fmt.Sprintf("%s %s: %d of %d done, %d failed, %d skipped", v.Action, v.Status, v.Done, v.Total, v.Failed, v.Skipped)
}

// run does the action to one execution at once, or makes a job of it.
func (b *bulkChoice) run(a *app, action string) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	if len(b.IDs) == 1 && !b.filtered() {
		return one(a, c, b.IDs[0], action, nil)
	}
	body, err := b.body()
	if err != nil {
		return err
	}
	var v bulkView
	if _, err := c.Do(a.ctx, "POST", "/executions/"+action, body, &v); err != nil {
		return err
	}
	return followBulk(a, c, v, b.Wait)
}

func one(a *app, c *client.Client, id, action string, body any) error {
	var e executionView
	if _, err := c.Do(a.ctx, "POST", "/executions/"+url.PathEscape(id)+"/"+action, body, &e); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(e)
	}
	fmt.Fprintf(a.out, "%s: %s accepted, it is %s\n", e.ID, action, e.Status)
	return nil
}

// followBulk shows a job, with wait until it is finished.
func followBulk(a *app, c *client.Client, v bulkView, wait bool) error {
	last := ""
	for wait && v.FinishedAt.IsZero() {
		if l := v.line(); !a.json && l != last {
			fmt.Fprintln(a.out, l)
			last = l
		}
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-time.After(time.Second):
		}
		if _, err := c.Do(a.ctx, "GET", "/bulk/"+v.ID, nil, &v); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(v)
	}
	fmt.Fprintf(a.out, "%s\n%s\n", v.ID, v.line())
	if v.Failed > 0 {
		fmt.Fprintf(a.out, "why: flowctl bulk results %s --outcome failed\n", v.ID)
	}
	return nil
}

type executionCancel struct{ bulkChoice }

func (g *executionCancel) Run(a *app) error { return g.run(a, "cancel") }

type executionRetry struct{ bulkChoice }

func (g *executionRetry) Run(a *app) error { return g.run(a, "retry") }

type executionReplay struct {
	bulkChoice
	From    string            `help:"Of one execution: this node and all that comes after it; the others keep what they gave." placeholder:"NODE"`
	Input   string            `help:"Of one execution: another input, as JSON." placeholder:"JSON"`
	Version int               `help:"Of one execution: another version of the flow."`
	Pin     map[string]string `help:"Of one execution: a node that doesn't run but gives this JSON; several are fine." placeholder:"NODE=JSON"`
}

func (g *executionReplay) Run(a *app) error {
	body := map[string]any{}
	if g.From != "" {
		body["fromNode"] = g.From
	}
	if g.Input != "" {
		if !json.Valid([]byte(g.Input)) {
			return errors.New("--input is not JSON; a text needs its quotes, as in --input '\"text\"'")
		}
		body["input"] = json.RawMessage(g.Input)
	}
	if g.Version > 0 {
		body["version"] = g.Version
	}
	outputs := map[string]json.RawMessage{}
	for node, value := range g.Pin {
		if !json.Valid([]byte(value)) {
			return fmt.Errorf("--pin of %s is not JSON", node)
		}
		outputs[node] = json.RawMessage(value)
	}
	if len(outputs) > 0 {
		body["outputs"] = outputs
	}
	if len(g.IDs) != 1 || g.filtered() {
		if len(body) > 0 {
			return errors.New("--from, --input, --version and --pin are for one execution: many are replayed as they were")
		}
		return g.run(a, "replay")
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	return one(a, c, g.IDs[0], "replay", body)
}

type executionPause struct {
	ID     string `arg:""`
	Reason string `required:"" help:"For all who wonder why it doesn't move."`
}

func (g *executionPause) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	return one(a, c, g.ID, "pause", map[string]any{"reason": g.Reason})
}

type executionResume struct {
	ID string `arg:""`
}

func (g *executionResume) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	return one(a, c, g.ID, "resume", nil)
}

type flowPause struct {
	Flow   string `arg:"" help:"Name or id."`
	Reason string `required:"" help:"For all who wonder why nothing moves."`
}

func (g *flowPause) Run(a *app) error {
	return switchFlow(a, g.Flow, "pause", map[string]any{"reason": g.Reason})
}

type flowResume struct {
	Flow string `arg:"" help:"Name or id."`
}

func (g *flowResume) Run(a *app) error { return switchFlow(a, g.Flow, "resume", nil) }

func switchFlow(a *app, flow, action string, body any) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var v struct {
		FlowID string `json:"flowId"`
		Paused bool   `json:"paused"`
		Reason string `json:"reason,omitempty"`
		Held   int    `json:"held"`
	}
	if _, err := c.Do(a.ctx, "POST", "/flows/"+url.PathEscape(flow)+"/"+action, body, &v); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(v)
	}
	fmt.Fprintf(a.out, "%s: %sd; %d executions are held now\n", flow, action, v.Held)
	return nil
}

type pauseCommand struct {
	List  pauseList  `cmd:"" help:"List the node types and pools that are paused."`
	Set   pauseSet   `cmd:"" help:"Pause a node type or a pool."`
	Clear pauseClear `cmd:"" help:"Let a node type or a pool go on."`
}

type pauseList struct{}

func (*pauseList) Run(a *app) error {
	type view struct {
		Kind, Name, Reason, SetBy string
		SetAt                     time.Time
	}
	return get(a, "/pauses", func(v struct{ Items []view }) error {
		rows := make([][]string, len(v.Items))
		for i, p := range v.Items {
			rows[i] = []string{p.Kind, p.Name, ago(p.SetAt), p.SetBy, p.Reason}
		}
		return a.table([]string{"KIND", "NAME", "SINCE", "BY", "REASON"}, rows)
	})
}

type pauseRef struct {
	Kind string `arg:"" enum:"node-type,pool" help:"node-type or pool."`
	Name string `arg:"" help:"The type of a node, or the name of a pool."`
}

func (p *pauseRef) path() string { return "/pauses/" + p.Kind + "/" + url.PathEscape(p.Name) }

type pauseSet struct {
	pauseRef
	Reason string `required:"" help:"For all who wonder why nothing moves."`
}

func (p *pauseSet) Run(a *app) error {
	return p.send(a, "PUT", "paused", map[string]any{"reason": p.Reason})
}

type pauseClear struct{ pauseRef }

func (p *pauseClear) Run(a *app) error { return p.send(a, "DELETE", "resumed", nil) }

func (p *pauseRef) send(a *app, method, what string, body any) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	if _, err := c.Do(a.ctx, method, p.path(), body, nil); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"kind": p.Kind, "name": p.Name, "state": what})
	}
	fmt.Fprintf(a.out, "%s %s: %s\n", p.Kind, p.Name, what)
	return nil
}

type bulkCommand struct {
	List    bulkList    `cmd:"" help:"List bulk jobs, the newest first."`
	Get     bulkGet     `cmd:"" help:"Show how far a job is."`
	Results bulkResults `cmd:"" help:"Show what became of each execution."`
	Cancel  bulkCancel  `cmd:"" help:"End a job: what is not done is skipped."`
}

type bulkList struct {
	Limit int `help:"How many at the most." default:"50"`
}

func (l *bulkList) Run(a *app) error {
	return list(a, "/bulk", nil, l.Limit, func(items []bulkView) error {
		rows := make([][]string, len(items))
		for i, v := range items {
			rows[i] = []string{v.ID, v.Action, v.Status, fmt.Sprintf("%d/%d", v.Done+v.Failed+v.Skipped, v.Total), fmt.Sprint(v.Failed), ago(v.CreatedAt), between(v.StartedAt, v.FinishedAt), v.AskedBy}
		}
		return a.table([]string{"ID", "ACTION", "STATUS", "PROGRESS", "FAILED", "CREATED", "TOOK", "BY"}, rows)
	})
}

type bulkGet struct {
	ID   string `arg:""`
	Wait bool   `help:"Wait until it is finished."`
}

func (g *bulkGet) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var v bulkView
	if _, err := c.Do(a.ctx, "GET", "/bulk/"+url.PathEscape(g.ID), nil, &v); err != nil {
		return err
	}
	return followBulk(a, c, v, g.Wait)
}

type bulkResults struct {
	ID      string `arg:""`
	Outcome string `help:"Only those with this outcome: done, failed or skipped."`
	Limit   int    `help:"How many at the most." default:"1000"`
}

func (g *bulkResults) Run(a *app) error {
	type result struct{ ExecutionID, Outcome, Reason, ReplayID string }
	q := url.Values{}
	if g.Outcome != "" {
		q.Set("outcome", g.Outcome)
	}
	return list(a, "/bulk/"+url.PathEscape(g.ID)+"/results", q, g.Limit, func(items []result) error {
		rows := make([][]string, len(items))
		for i, v := range items {
			rows[i] = []string{v.ExecutionID, v.Outcome, v.ReplayID, v.Reason}
		}
		return a.table([]string{"EXECUTION", "OUTCOME", "REPLAY", "REASON"}, rows)
	})
}

type bulkCancel struct {
	ID string `arg:""`
}

func (g *bulkCancel) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var v bulkView
	if _, err := c.Do(a.ctx, "POST", "/bulk/"+url.PathEscape(g.ID)+"/cancel", nil, &v); err != nil {
		return err
	}
	return followBulk(a, c, v, false)
}

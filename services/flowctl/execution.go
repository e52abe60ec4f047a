package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"
)

type executionCommand struct {
	List    executionList    `cmd:"" help:"List executions, the newest first."`
	Get     executionGet     `cmd:"" help:"Show an execution."`
	Steps   executionSteps   `cmd:"" help:"Show what its steps did."`
	Waits   executionWaits   `cmd:"" help:"Show what it waits for, and has waited for."`
	Logs    executionLogs    `cmd:"" help:"Show what its nodes have logged."`
	Why     executionWhy     `cmd:"" help:"Say why it has not moved."`
	Catches executionCatches `cmd:"" help:"Show which error flows its bad end has started."`
	Cancel  executionCancel  `cmd:"" help:"Cancel executions, by ids or by filter."`
	Retry   executionRetry   `cmd:"" help:"Retry executions from the steps that failed, by ids or by filter."`
	Replay  executionReplay  `cmd:"" help:"Repeat executions as new ones: one with changes, or many as they were."`
	Pause   executionPause   `cmd:"" help:"Pause an execution."`
	Resume  executionResume  `cmd:"" help:"Let a paused execution go on."`
	Watch   executionWatch   `cmd:"" help:"Follow an execution until its end."`
}

type executionList struct {
	Flow   string        `help:"Name or id of a flow."`
	Status []string      `help:"Only those in these states, by comma." enum:"queued,running,waiting,succeeded,failed,cancelled,timed_out" placeholder:"STATUS"`
	Since  time.Duration `help:"Only those accepted within this time, like 1h." placeholder:"DURATION"`
	Label  []string      `help:"Only those with this label; several: all of them." sep:"none" placeholder:"KEY=VALUE"`
	Query  string        `short:"q" help:"Text in the id, the trigger, the labels or the flow's name."`
	Limit  int           `help:"How many at the most." default:"50"`
}

func (l *executionList) Run(a *app) error {
	q := url.Values{"label": l.Label}
	if l.Flow != "" {
		c, err := a.api()
		if err != nil {
			return err
		}
		f, err := findFlow(a, c, l.Flow)
		if err != nil {
			return err
		}
		q.Set("flowId", f.ID)
	}
	for _, s := range l.Status {
		q.Set("status", joined(q.Get("status"), s))
	}
	if l.Since > 0 {
		q.Set("since", time.Now().Add(-l.Since).UTC().Format(time.RFC3339))
	}
	if l.Query != "" {
		q.Set("q", l.Query)
	}
	return list(a, "/executions", q, l.Limit, func(items []executionView) error {
		rows := make([][]string, len(items))
		for i, e := range items {
			rows[i] = []string{e.ID, e.Status, ago(e.CreatedAt), between(e.CreatedAt, e.FinishedAt), fmt.Sprint(e.Attempt), e.failure()}
		}
		return a.table([]string{"ID", "STATUS", "CREATED", "TOOK", "ATTEMPT", "ERROR"}, rows)
	})
}

func joined(list, s string) string {
	if list == "" {
		return s
	}
	return list + "," + s
}

type executionGet struct {
	ID string `arg:""`
}

func (g *executionGet) Run(a *app) error {
	type detail struct {
		executionView
		Input                    json.RawMessage
		Trigger, Priority, Pool  string
		Labels                   map[string]string
		Hold, ParentID, ReplayOf string
		Paused                   string
	}
	return get(a, "/executions/"+url.PathEscape(g.ID), func(e detail) error {
		labels := ""
		if len(e.Labels) > 0 {
			b, err := json.Marshal(e.Labels)
			if err != nil {
				return err
			}
			labels = string(b)
		}
		return a.fields([][2]string{
			{"ID", e.ID}, {"Flow", fmt.Sprintf("%s, version %d", e.FlowID, e.FlowVersion)}, {"Status", e.Status}, {"Error", e.failure()}, {"Held", e.Hold}, {"Paused", e.Paused}, {"Trigger", e.Trigger}, {"Priority", e.Priority}, {"Pool", e.Pool},
			{"Labels", labels}, {"Created", when(e.CreatedAt)}, {"Finished", when(e.FinishedAt)}, {"Took", between(e.CreatedAt, e.FinishedAt)}, {"Attempt", fmt.Sprint(e.Attempt)}, {"Parent", e.ParentID}, {"Replay of", e.ReplayOf},
			{"Input", compact(e.Input)}, {"Output", compact(e.Output)},
		})
	})
}

type executionSteps struct {
	ID string `arg:""`
}

func (s *executionSteps) Run(a *app) error {
	type step struct {
		Node, Iteration, Type, Status, Port string
		Error                               *failureView
		Try                                 int
		StartedAt, FinishedAt               time.Time
	}
	return get(a, "/executions/"+url.PathEscape(s.ID)+"/steps", func(all struct{ Items []step }) error {
		rows := make([][]string, len(all.Items))
		for i, v := range all.Items {
			rows[i] = []string{v.Node, v.Iteration, v.Type, v.Status, v.Port, fmt.Sprint(v.Try), between(v.StartedAt, v.FinishedAt), v.Error.String()}
		}
		return a.table([]string{"NODE", "ROUND", "TYPE", "STATUS", "PORT", "TRY", "TOOK", "ERROR"}, rows)
	})
}

type executionWaits struct {
	ID string `arg:""`
}

func (w *executionWaits) Run(a *app) error {
	type wait struct {
		Node, Iteration, Kind, Key, Reason string
		Since, Due, Met                    time.Time
		Seconds                            float64
	}
	return get(a, "/executions/"+url.PathEscape(w.ID)+"/waits", func(v struct{ Items []wait }) error {
		rows := make([][]string, len(v.Items))
		for i, x := range v.Items {
			state := "open"
			if !x.Met.IsZero() {
				state = "over"
			}
			lasted := time.Duration(x.Seconds * float64(time.Second)).Round(time.Millisecond).String()
			rows[i] = []string{x.Node, x.Iteration, x.Kind, state, lasted, when(x.Due), x.Key, x.Reason}
		}
		return a.table([]string{"NODE", "ROUND", "KIND", "STATE", "LASTED", "DUE", "KEY", "REASON"}, rows)
	})
}

type executionLogs struct {
	ID    string `arg:""`
	Limit int    `help:"How many lines at the most." default:"1000"`
}

func (l *executionLogs) Run(a *app) error {
	type line struct {
		At                              time.Time
		Level, Node, Iteration, Message string
		Fields                          json.RawMessage
	}
	return list(a, "/executions/"+url.PathEscape(l.ID)+"/logs", nil, l.Limit, func(items []line) error {
		for _, v := range items {
			node := v.Node
			if v.Iteration != "" {
				node += "[" + v.Iteration + "]"
			}
			fmt.Fprintf(a.out, "%s %-5s %s: %s", v.At.Local().Format("15:04:05.000"), v.Level, node, printable(v.Message))
			if len(v.Fields) > 0 {
				fmt.Fprintf(a.out, " %s", compact(v.Fields))
			}
			fmt.Fprintln(a.out)
		}
		return nil
	})
}

type executionWhy struct {
	ID string `arg:""`
}

func (w *executionWhy) Run(a *app) error {
	type reason struct{ Code, Message string }
	return get(a, "/executions/"+url.PathEscape(w.ID)+"/why", func(v struct {
		Status  string
		Since   time.Time
		Reasons []reason
	}) error {
		fmt.Fprintf(a.out, "%s since %s\n", v.Status, when(v.Since))
		rows := make([][]string, len(v.Reasons))
		for i, r := range v.Reasons {
			rows[i] = []string{r.Code, r.Message}
		}
		return a.table([]string{"REASON", "WHAT IT MEANS"}, rows)
	})
}

type executionWatch struct {
	ID string `arg:""`
}

func (g *executionWatch) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	e := executionView{ID: g.ID}
	if _, err := c.Do(a.ctx, "GET", "/executions/"+url.PathEscape(g.ID), nil, &e); err != nil {
		return err
	}
	e, err = follow(a, c, e, time.Now().Add(24*time.Hour), func(e executionView) {
		if !a.json {
			fmt.Fprintf(a.out, "%s  %s\n", time.Now().Format(time.TimeOnly), e.Status)
		}
	})
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(e); err != nil {
			return err
		}
	}
	return ended(e)
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"
)

type deadletterCommand struct {
	List    letterList    `cmd:"" help:"List what could not be processed, counted by reason unless a reason is named."`
	Show    letterShow    `cmd:"" help:"Show one with its body."`
	Requeue letterRequeue `cmd:"" help:"Bring dead letters back."`
	Purge   letterPurge   `cmd:"" help:"Remove dead letters for good."`
}

// letterChoice is how commands name dead letters.
type letterChoice struct {
	IDs       []string `arg:"" optional:"" name:"id" help:"Ids of dead letters."`
	Reason    string   `help:"All that are open and have this reason."`
	Kind      string   `help:"All that are open and of this kind: task, report or execution."`
	Execution string   `help:"All that are open and of this execution."`
	All       bool     `help:"All that are open."`
}

func (c *letterChoice) body() (map[string]any, error) {
	filter := map[string]any{}
	for name, value := range map[string]string{"reason": c.Reason, "kind": c.Kind, "executionId": c.Execution} {
		if value != "" {
			filter[name] = value
		}
	}
	switch {
	case len(c.IDs) > 0 && (len(filter) > 0 || c.All):
		return nil, errors.New("name ids, or a filter, not both")
	case len(c.IDs) > 0:
		return map[string]any{"ids": c.IDs}, nil
	case len(filter) == 0 && !c.All:
		return nil, errors.New("name ids, or --reason, --kind, --execution, or --all")
	}
	return map[string]any{"filter": filter}, nil
}

type letterList struct {
	Reason string `help:"Those with this reason, one by one."`
	Each   bool   `help:"One by one, whatever the reason."`
	Done   bool   `help:"Those that are done with, too."`
	Limit  int    `help:"How many at the most." default:"50"`
}

func (l *letterList) Run(a *app) error {
	q := url.Values{"limit": {fmt.Sprint(l.Limit)}}
	if l.Done {
		q.Set("state", "all")
	}
	if l.Reason == "" && !l.Each {
		q.Set("group", "reason")
	} else if l.Reason != "" {
		q.Set("reason", l.Reason)
	}
	type letter struct {
		ID, Kind, Reason, Origin, ExecutionID, State, Outcome, Detail string
		Count                                                         int
		At                                                            time.Time
	}
	type group struct {
		Reason, Kind, Origin string
		Count                int
		Oldest, Newest       time.Time
	}
	return get(a, "/dead-letters?"+q.Encode(), func(v struct {
		Items  []letter
		Groups []group
	}) error {
		var rows [][]string
		if q.Get("group") != "" {
			for _, g := range v.Groups {
				rows = append(rows, []string{g.Reason, g.Kind, g.Origin, fmt.Sprint(g.Count), ago(g.Oldest), ago(g.Newest)})
			}
			return a.table([]string{"REASON", "KIND", "ORIGIN", "COUNT", "OLDEST", "NEWEST"}, rows)
		}
		for _, d := range v.Items {
			rows = append(rows, []string{d.ID, d.Reason, d.Kind, d.State, fmt.Sprint(d.Count), ago(d.At), d.ExecutionID, d.Outcome})
		}
		return a.table([]string{"ID", "REASON", "KIND", "STATE", "COUNT", "AGE", "EXECUTION", "OUTCOME"}, rows)
	})
}

type letterShow struct {
	ID string `arg:"" help:"Its id."`
}

func (l *letterShow) Run(a *app) error {
	return get(a, "/dead-letters/"+url.PathEscape(l.ID), func(v json.RawMessage) error { return a.printJSON(v) })
}

type letterRequeue struct{ letterChoice }

func (l *letterRequeue) Run(a *app) error {
	return l.send(a, "requeue", "asked for: flowctl deadletter list --each --done shows what became of them")
}

type letterPurge struct{ letterChoice }

func (l *letterPurge) Run(a *app) error { return l.send(a, "purge", "removed") }

func (c *letterChoice) send(a *app, action, what string) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	var out struct {
		Count int `json:"count"`
	}
	if _, err := api.Do(a.ctx, "POST", "/dead-letters/"+action, body, &out); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(out)
	}
	fmt.Fprintf(a.out, "%d %s\n", out.Count, what)
	return nil
}

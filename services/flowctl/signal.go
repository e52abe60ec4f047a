package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// sentSignal is what became of a signal.
type sentSignal struct{ ID, Status, ExecutionID string }

type signalCommand struct {
	Name      string `arg:"" help:"Of the signal."`
	Key       string `help:"The key that the flow waits with."`
	Execution string `help:"Only to this execution, whatever key it waits with." placeholder:"ID"`
	Data      string `help:"JSON that the step gives as its output." placeholder:"JSON"`
}

// Run sends a signal.
func (s *signalCommand) Run(a *app) error {
	body := map[string]any{}
	path := "/signals/" + url.PathEscape(s.Name)
	switch {
	case s.Execution != "" && s.Key != "":
		return errors.New("name an execution, or a key, not both: a signal to an execution meets its wait whatever the key")
	case s.Execution != "":
		path = "/executions/" + url.PathEscape(s.Execution) + path
	case s.Key != "":
		body["key"] = s.Key
	}
	if s.Data != "" {
		if !json.Valid([]byte(s.Data)) {
			return fmt.Errorf("--data is not JSON: %s (a text needs its quotes: --data '\"text\"')", s.Data)
		}
		body["data"] = json.RawMessage(s.Data)
	}
	var sent json.RawMessage
	c, err := a.api()
	if err != nil {
		return err
	}
	if _, err := c.Do(a.ctx, "POST", path, body, &sent); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(sent)
	}
	var v sentSignal
	if err := json.Unmarshal(sent, &v); err != nil {
		return err
	}
	if v.Status == "taken" {
		fmt.Fprintf(a.out, "taken by %s\n", v.ExecutionID)
	} else {
		fmt.Fprintln(a.out, "kept: nobody waits for it yet, and the next to do so takes it")
	}
	return nil
}

type approvalCommand struct {
	List    approvalList   `cmd:"" help:"List what you may approve or reject."`
	Approve approvalDecide `cmd:"" help:"Approve."`
	Reject  approvalReject `cmd:"" help:"Reject."`
}

type approvalList struct {
	Limit int `help:"How many at the most." default:"50"`
}

// Run lists open approvals.
func (l *approvalList) Run(a *app) error {
	return get(a, "/approvals?limit="+fmt.Sprint(l.Limit), func(v struct {
		Items []struct {
			ExecutionID, Node, Iteration, Title string
			Since, Expires                      time.Time
		}
	}) error {
		var rows [][]string
		for _, i := range v.Items {
			expires := "-"
			if !i.Expires.IsZero() {
				expires = i.Expires.Local().Format(time.DateTime)
			}
			rows = append(rows, []string{i.ExecutionID, i.Node, i.Iteration, i.Title, ago(i.Since), expires})
		}
		return a.table([]string{"EXECUTION", "NODE", "ROUND", "TITLE", "AGE", "EXPIRES"}, rows)
	})
}

type approvalDecide struct {
	Execution string `arg:"" help:"Id of the execution."`
	Node      string `arg:"" help:"Id of the approval's node."`
	Round     string `help:"Inside a loop: which round, as approval list shows it."`
	Data      string `help:"JSON of the fields that the approval asks for." placeholder:"JSON"`
}

type approvalReject struct{ approvalDecide }

// Run approves.
func (d *approvalDecide) Run(a *app) error { return d.decide(a, "approve") }

// Run rejects.
func (d *approvalReject) Run(a *app) error { return d.decide(a, "reject") }

func (d *approvalDecide) decide(a *app, decision string) error {
	body := map[string]any{"decision": decision}
	if d.Round != "" {
		body["iteration"] = d.Round
	}
	if d.Data != "" {
		if !json.Valid([]byte(d.Data)) {
			return fmt.Errorf("--data is not JSON: %s", d.Data)
		}
		body["data"] = json.RawMessage(d.Data)
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	var answer json.RawMessage
	if _, err := c.Do(a.ctx, "POST", "/executions/"+url.PathEscape(d.Execution)+"/approvals/"+url.PathEscape(d.Node), body, &answer); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer)
	}
	fmt.Fprintf(a.out, "%s %s: %s accepted\n", d.Execution, d.Node, decision)
	return nil
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flowplatform/services/flowctl/internal/client"
)

// executionView is what flowctl reads of an execution.
type executionView struct {
	ID          string          `json:"id"`
	FlowID      string          `json:"flowId"`
	FlowVersion int             `json:"flowVersion"`
	Status      string          `json:"status"`
	Output      json.RawMessage `json:"output"`
	Error       *failureView    `json:"error"`
	Attempt     int             `json:"attempt"`
	CreatedAt   time.Time       `json:"createdAt"`
	FinishedAt  time.Time       `json:"finishedAt"`
}

// failureView is why an execution or a step failed.
type failureView struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Node    string `json:"node"`
}

func (f *failureView) String() string {
	switch {
	case f == nil:
		return ""
	case f.Node != "":
		return fmt.Sprintf("%s (%s, node %q)", f.Message, f.Code, f.Node)
	}
	return fmt.Sprintf("%s (%s)", f.Message, f.Code)
}

func (e executionView) failure() string { return e.Error.String() }

func final(status string) bool {
	switch status {
	case "succeeded", "failed", "cancelled", "timed_out":
		return true
	}
	return false
}

type runCommand struct {
	Flow  string        `arg:"" optional:"" help:"Name or id."`
	File  string        `short:"f" help:"In place of a name: apply this document first, then start it." placeholder:"FILE"`
	Input string        `help:"The input, as JSON; @FILE reads a file." default:"null" placeholder:"JSON"`
	Wait  bool          `help:"Wait for the end, print the output; the exit status is 0 only when the flow succeeded."`
	For   time.Duration `help:"How long to wait at the most." default:"10m"`
}

func (r *runCommand) Run(a *app) error {
	input := []byte(r.Input)
	if len(r.Input) > 1 && r.Input[0] == '@' {
		var err error
		if input, err = readFile(a, r.Input[1:]); err != nil {
			return err
		}
	}
	if !json.Valid(input) {
		return fmt.Errorf("--input is not JSON: %s", input)
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	f, err := r.find(a, c)
	if err != nil {
		return err
	}
	path := "/flows/" + f.ID + "/executions"
	if r.Wait {
		path += "?wait=" + min(r.For, 30*time.Second).String()
	}
	var e executionView
	if _, err := c.Do(a.ctx, "POST", path, map[string]json.RawMessage{"input": input}, &e); err != nil {
		return err
	}
	if !r.Wait {
		if a.json {
			return a.printJSON(e)
		}
		fmt.Fprintf(a.out, "%s %s\n", e.ID, e.Status)
		return nil
	}
	if e, err = follow(a, c, e, time.Now().Add(r.For), func(executionView) {}); err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(e); err != nil {
			return err
		}
	} else if e.Status == "succeeded" {
		fmt.Fprintf(a.out, "%s\n", e.Output)
	}
	return ended(e)
}

// find finds the flow to start, or applies it.
func (r *runCommand) find(a *app, c *client.Client) (flowView, error) {
	if (r.Flow == "") == (r.File == "") {
		return flowView{}, errors.New("name a flow, or a document with --file, and not both")
	}
	if r.File == "" {
		return findFlow(a, c, r.Flow)
	}
	saved, verb, err := (&flowApply{File: r.File}).apply(a, c)
	if err == nil {
		fmt.Fprintf(a.errs, "%s %s: version %d\n", saved.Name, verb, saved.Latest)
	}
	return saved, err
}

func ended(e executionView) error {
	switch {
	case e.Status == "succeeded":
		return nil
	case e.Error != nil:
		return fmt.Errorf("execution %s %s: %s", e.ID, e.Status, e.failure())
	}
	return fmt.Errorf("execution %s %s", e.ID, e.Status)
}

// follow asks for an execution until it is final, and shows each change of its state.
func follow(a *app, c *client.Client, e executionView, until time.Time, changed func(executionView)) (executionView, error) {
	changed(e)
	for pause := 100 * time.Millisecond; !final(e.Status); pause = min(pause*2, 2*time.Second) {
		if time.Now().After(until) {
			return e, fmt.Errorf("execution %s is still %s: it goes on; `flowctl execution watch %s` follows it", e.ID, e.Status, e.ID)
		}
		select {
		case <-a.ctx.Done():
			return e, fmt.Errorf("execution %s is still %s: it goes on", e.ID, e.Status)
		case <-time.After(pause):
		}
		before := e.Status
		e = executionView{ID: e.ID}
		if _, err := c.Do(a.ctx, "GET", "/executions/"+e.ID, nil, &e); err != nil {
			return e, err
		}
		if e.Status != before {
			changed(e)
			pause = 50 * time.Millisecond
		}
	}
	return e, nil
}

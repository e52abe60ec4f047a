package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

type workerCommand struct {
	List  workerList  `cmd:"" help:"List the workers and how they are."`
	Drain workerDrain `cmd:"" help:"Ask a worker to stop in order: it finishes or hands back what it has."`
}

type workerList struct{}

type workerView struct {
	ID      string `json:"id"`
	Pool    string `json:"pool"`
	Host    string `json:"host"`
	Version string `json:"version"`
	State   string `json:"state"`
	Limit   int    `json:"limit"`
	Slots   int    `json:"slots"`
	Weight  int    `json:"weight"`
	Load    *struct {
		Running       int       `json:"running"`
		Buffered      int       `json:"buffered"`
		CPU           float64   `json:"cpu"`
		CPULimit      float64   `json:"cpuLimit"`
		MemoryMB      int       `json:"memoryMb"`
		MemoryLimitMB int       `json:"memoryLimitMb"`
		ReportedAt    time.Time `json:"reportedAt"`
	} `json:"load"`
}

// get asks for something and shows it: as it came for programs, by table for people.
func get[T any](a *app, path string, table func(T) error) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if _, err := c.Do(a.ctx, "GET", path, nil, &raw); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(raw)
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("the answer can't be read: %w", err)
	}
	return table(v)
}

func (*workerList) Run(a *app) error {
	return get(a, "/workers", func(v struct{ Items []workerView }) error {
		rows := make([][]string, len(v.Items))
		for i, w := range v.Items {
			rows[i] = []string{w.ID, w.Pool, w.State, fmt.Sprintf("%d/%d", w.Slots, w.Limit), "-", "-", "-", "-", "-", w.Host, w.Version}
			if l := w.Load; l != nil {
				copy(rows[i][4:], []string{fmt.Sprint(l.Running), fmt.Sprint(l.Buffered), fmt.Sprintf("%.1f/%g", l.CPU, l.CPULimit), fmt.Sprintf("%d/%d", l.MemoryMB, l.MemoryLimitMB), ago(l.ReportedAt)})
			}
		}
		return a.table([]string{"WORKER", "POOL", "STATE", "SLOTS", "RUNNING", "BUFFERED", "CPU", "MEMORY MB", "REPORTED", "HOST", "VERSION"}, rows)
	})
}

type workerDrain struct {
	Worker string `arg:"" help:"Its id."`
}

func (d *workerDrain) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var w workerView
	if _, err := c.Do(a.ctx, "POST", "/workers/"+url.PathEscape(d.Worker)+"/drain", nil, &w); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(w)
	}
	fmt.Fprintf(a.out, "%s is %s\n", w.ID, w.State)
	return nil
}

type queueCommand struct {
	List queueList `cmd:"" help:"List the queues and how deep they are."`
}

type queueList struct{}

type queueView struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Priority  string `json:"priority"`
	Ready     int    `json:"ready"`
	Consumers int    `json:"consumers"`
	Error     string `json:"error"`
}

func (*queueList) Run(a *app) error {
	type pool struct {
		Pool     string
		Backlog  int
		Buffered int
		Queues   []queueView
	}
	return get(a, "/queues", func(v struct {
		Pools []pool
		Other []queueView
	}) error {
		var rows [][]string
		row := func(pool string, q queueView) {
			ready := fmt.Sprint(q.Ready)
			if q.Error != "" {
				ready = "? " + q.Error
			}
			rows = append(rows, []string{q.Name, pool, ready, fmt.Sprint(q.Consumers)})
		}
		for _, p := range v.Pools {
			for _, q := range p.Queues {
				row(p.Pool, q)
			}
			rows = append(rows, []string{"held by workers, not begun", p.Pool, fmt.Sprint(p.Buffered), "-"})
		}
		for _, q := range v.Other {
			row("-", q)
		}
		return a.table([]string{"QUEUE", "POOL", "READY", "CONSUMERS"}, rows)
	})
}

type scalingCommand struct {
	Decisions int `help:"How many of the last decisions." default:"10"`
}

func (s *scalingCommand) Run(a *app) error {
	type pool struct {
		Pool                                                        string
		Desired, Wanted, Placed, Reporting, Backlog, Running, Slots int
		Arrival, Completion, Utilisation                            float64
		Code, Reason                                                string
	}
	type decision struct {
		Pool, Reason, Outcome string
		At                    time.Time
		Detail                struct{ From, To, Wanted int }
	}
	return get(a, fmt.Sprintf("/scaling?limit=%d", min(max(s.Decisions, 1), 500)), func(v struct {
		At        time.Time
		Pools     []pool
		Decisions []decision
	}) error {
		if v.At.IsZero() {
			fmt.Fprintln(a.errs, "nobody has looked within 20 seconds: is there a leader?")
		}
		rows := make([][]string, len(v.Pools))
		for i, p := range v.Pools {
			rows[i] = []string{p.Pool, fmt.Sprint(p.Desired), fmt.Sprint(p.Wanted), fmt.Sprint(p.Placed), fmt.Sprint(p.Reporting), fmt.Sprint(p.Backlog), fmt.Sprintf("%d/%d (%.0f %%)", p.Running, p.Slots, 100*p.Utilisation),
				fmt.Sprintf("%.1f", p.Arrival), fmt.Sprintf("%.1f", p.Completion), p.Code + ": " + p.Reason}
		}
		if err := a.table([]string{"POOL", "DESIRED", "WANTED", "PLACED", "REPORTING", "BACKLOG", "RUNNING", "IN/S", "OUT/S", "WHY"}, rows); err != nil || len(v.Decisions) == 0 {
			return err
		}
		fmt.Fprintln(a.out)
		rows = make([][]string, len(v.Decisions))
		for i, d := range v.Decisions {
			rows[i] = []string{ago(d.At), d.Pool, fmt.Sprintf("%d to %d", d.Detail.From, d.Detail.To), d.Outcome, d.Reason}
		}
		return a.table([]string{"DECIDED", "POOL", "WORKERS", "OUTCOME", "WHY"}, rows)
	})
}

type settingCommand struct {
	List settingList `cmd:"" help:"Show the settings that can be changed while the platform runs."`
	Set  settingSet  `cmd:"" help:"Change settings: NAME=VALUE …; NAME= takes the default again."`
}

type settingList struct{}

func (*settingList) Run(a *app) error { return get(a, "/settings", a.settingTable) }

type settingsView struct {
	Items []struct {
		Name, UpdatedBy         string
		Effective, Default, Set json.RawMessage
		Refused                 []struct{ Value, Source, Reason string }
	}
}

func (a *app) settingTable(v settingsView) error {
	rows := make([][]string, len(v.Items))
	for i, s := range v.Items {
		refused := ""
		for _, r := range s.Refused {
			refused += fmt.Sprintf("%s by %s: %s ", r.Value, r.Source, r.Reason)
		}
		rows[i] = []string{s.Name, string(s.Effective), string(s.Default), string(s.Set), s.UpdatedBy, refused}
	}
	return a.table([]string{"SETTING", "FOLLOWED", "DEFAULT", "SET", "BY", "REFUSED"}, rows)
}

type settingSet struct {
	Values []string `arg:"" placeholder:"NAME=VALUE"`
}

func (s *settingSet) Run(a *app) error {
	values := map[string]any{}
	for _, v := range s.Values {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=VALUE", v)
		}
		if values[name] = value; value == "" {
			values[name] = nil
		}
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if _, err := c.Do(a.ctx, "PUT", "/settings", map[string]any{"values": values}, &raw); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(raw)
	}
	var v settingsView
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("the answer can't be read: %w", err)
	}
	return a.settingTable(v)
}

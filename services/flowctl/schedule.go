package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

type scheduleCommand struct {
	List     scheduleList     `cmd:"" help:"List schedules, those of flows too."`
	Get      scheduleGet      `cmd:"" help:"Show a schedule with its next ten instants."`
	Create   scheduleCreate   `cmd:"" help:"Make a schedule that starts a flow."`
	Save     scheduleSave     `cmd:"" help:"Change a schedule: give it whole, as for create."`
	Preview  schedulePreview  `cmd:"" help:"Say when an expression fires, without saving anything."`
	Pause    schedulePause    `cmd:"" help:"Pause a schedule."`
	Resume   scheduleResume   `cmd:"" help:"Let a schedule go on, from now."`
	Backfill scheduleBackfill `cmd:"" help:"Start the flow for instants of the past, each once."`
	Fires    scheduleFires    `cmd:"" help:"List what became of a schedule's instants."`
	Delete   scheduleDelete   `cmd:"" help:"Delete a schedule; what it started goes on."`
}

type scheduleView struct {
	ID       string      `json:"id"`
	Name     string      `json:"name"`
	FlowName string      `json:"flowName"`
	Cron     string      `json:"cron"`
	TimeZone string      `json:"timeZone"`
	CatchUp  string      `json:"catchUp"`
	Overlap  string      `json:"overlap"`
	Paused   bool        `json:"paused"`
	NextDue  time.Time   `json:"nextDue"`
	Next     []time.Time `json:"next"`
}

func (v *scheduleView) next() string {
	switch {
	case v.Paused:
		return "paused"
	case v.NextDue.IsZero():
		return "over"
	}
	return moment(v.NextDue)
}

// moment is an instant as this machine's clock shows it.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -0700") }

type scheduleList struct {
	Flow  string `help:"Only of this flow." placeholder:"FLOW"`
	Limit int    `help:"How many at the most." default:"50"`
}

func (c *scheduleList) Run(a *app) error {
	q := url.Values{}
	if c.Flow != "" {
		q.Set("flowId", c.Flow)
	}
	return list(a, "/schedules", q, c.Limit, func(items []scheduleView) error {
		rows := make([][]string, len(items))
		for i := range items {
			v := &items[i]
			rows[i] = []string{v.ID, v.Name, v.FlowName, v.Cron, v.TimeZone, v.next()}
		}
		return a.table([]string{"ID", "NAME", "FLOW", "CRON", "TIME ZONE", "NEXT"}, rows)
	})
}

// show prints a schedule with what is ahead.
func (v *scheduleView) show(a *app) error {
	fmt.Fprintf(a.out, "%s  %s\nflow      %s\nwhen      %s, %s\ncatch-up  %s\noverlap   %s\n", printable(v.Name), v.ID, printable(v.FlowName), v.Cron, v.TimeZone, v.CatchUp, v.Overlap)
	if len(v.Next) == 0 {
		fmt.Fprintf(a.out, "next      %s\n", v.next())
	}
	for i, at := range v.Next {
		head := "          "
		if i == 0 {
			head = "next      "
		}
		fmt.Fprintln(a.out, head+moment(at))
	}
	return nil
}

// ask does one call about schedules and shows the schedule that it answers with.
func (c *scheduleName) ask(a *app, method, suffix string, body any) error {
	return askSchedule(a, method, "/schedules/"+url.PathEscape(c.Schedule)+suffix, body)
}

func askSchedule(a *app, method, path string, body any) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if _, err := api.Do(a.ctx, method, path, body, &raw); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(raw)
	}
	var v scheduleView
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("this schedule is not what this flowctl knows: %w", err)
	}
	return v.show(a)
}

type scheduleName struct {
	Schedule string `arg:"" help:"Name or id of the schedule."`
}

type (
	scheduleGet    struct{ scheduleName }
	schedulePause  struct{ scheduleName }
	scheduleResume struct{ scheduleName }
	scheduleDelete struct{ scheduleName }
)

func (c *scheduleGet) Run(a *app) error    { return c.ask(a, http.MethodGet, "", nil) }
func (c *schedulePause) Run(a *app) error  { return c.ask(a, http.MethodPost, "/pause", nil) }
func (c *scheduleResume) Run(a *app) error { return c.ask(a, http.MethodPost, "/resume", nil) }

func (c *scheduleDelete) Run(a *app) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	if _, err := api.Do(a.ctx, http.MethodDelete, "/schedules/"+url.PathEscape(c.Schedule), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s deleted\n", c.Schedule)
	return nil
}

// scheduleFields are what a schedule is made of.
type scheduleFields struct {
	Flow       string `required:"" help:"Flow to start, by name or id." placeholder:"FLOW"`
	Cron       string `required:"" help:"When: five fields, six with seconds before them, or @daily and the like." placeholder:"EXPRESSION"`
	TimeZone   string `help:"IANA name." default:"UTC" placeholder:"ZONE"`
	Input      string `help:"Input of every execution, as JSON." placeholder:"JSON"`
	CatchUp    string `help:"What becomes of missed instants: skip, one or all." enum:"skip,one,all" default:"skip"`
	CatchUpMax int    `help:"With --catch-up=all, how many of the newest." default:"100"`
	Overlap    string `help:"While an execution of it isn't over: allow another, skip the instant, or cancel it first." enum:"allow,skip,cancel" default:"allow"`
	Start      string `help:"No instant before it, like 2026-03-01T00:00:00Z." placeholder:"TIME"`
	End        string `help:"No instant after it." placeholder:"TIME"`
}

func (c *scheduleFields) body(name string) (map[string]any, error) {
	body := map[string]any{"name": name, "flowId": c.Flow, "cron": c.Cron, "timeZone": c.TimeZone, "catchUp": c.CatchUp, "catchUpMax": c.CatchUpMax, "overlap": c.Overlap}
	if c.Input != "" {
		if !json.Valid([]byte(c.Input)) {
			return nil, errors.New("--input is not JSON")
		}
		body["input"] = json.RawMessage(c.Input)
	}
	for field, text := range map[string]string{"startAt": c.Start, "endAt": c.End} {
		if text != "" {
			body[field] = text
		}
	}
	return body, nil
}

type scheduleCreate struct {
	Name string `arg:"" help:"Name of the schedule."`
	scheduleFields
	Paused bool `help:"It begins when it is resumed."`
}

func (c *scheduleCreate) Run(a *app) error {
	body, err := c.body(c.Name)
	if err != nil {
		return err
	}
	if c.Paused {
		body["paused"] = true
	}
	return askSchedule(a, http.MethodPost, "/schedules", body)
}

type scheduleSave struct {
	scheduleName
	scheduleFields
	Rename string `help:"Its new name." placeholder:"NAME"`
}

func (c *scheduleSave) Run(a *app) error {
	name := c.Schedule
	if c.Rename != "" {
		name = c.Rename
	}
	body, err := c.body(name)
	if err != nil {
		return err
	}
	return c.ask(a, http.MethodPut, "", body)
}

type schedulePreview struct {
	Cron     string `arg:"" help:"Expression, in quotes."`
	TimeZone string `help:"IANA name." default:"UTC" placeholder:"ZONE"`
	From     string `help:"From this time on, like 2026-03-28T00:00:00Z; now otherwise." placeholder:"TIME"`
	Count    int    `help:"How many." default:"10"`
}

func (c *schedulePreview) Run(a *app) error {
	body := map[string]any{"cron": c.Cron, "timeZone": c.TimeZone, "count": c.Count}
	if c.From != "" {
		body["from"] = c.From
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	var page struct {
		Items []struct {
			At    string `json:"at"`
			Local string `json:"local"`
		} `json:"items"`
	}
	if _, err := api.Do(a.ctx, http.MethodPost, "/schedules/preview", body, &page); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(page)
	}
	rows := make([][]string, len(page.Items))
	for i, v := range page.Items {
		rows[i] = []string{v.Local, v.At}
	}
	return a.table([]string{"THERE", "UTC"}, rows)
}

type scheduleBackfill struct {
	scheduleName
	From  string `required:"" help:"First instant that may be fired, like 2026-03-01T00:00:00Z." placeholder:"TIME"`
	To    string `required:"" help:"No instant at or after this." placeholder:"TIME"`
	Limit int    `help:"Instants to look at, at most 1000." default:"1000"`
}

func (c *scheduleBackfill) Run(a *app) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	var done struct {
		Started []struct {
			Due         time.Time `json:"due"`
			ExecutionID string    `json:"executionId"`
		} `json:"started"`
		Already  int    `json:"already"`
		NextFrom string `json:"nextFrom,omitempty"`
	}
	if _, err := api.Do(a.ctx, http.MethodPost, "/schedules/"+url.PathEscape(c.Schedule)+"/backfill", map[string]any{"from": c.From, "to": c.To, "limit": c.Limit}, &done); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	rows := make([][]string, len(done.Started))
	for i, f := range done.Started {
		rows[i] = []string{moment(f.Due), f.ExecutionID}
	}
	if err := a.table([]string{"DUE", "EXECUTION"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%d started, %d had their execution already\n", len(done.Started), done.Already)
	if done.NextFrom != "" {
		fmt.Fprintf(a.out, "there are more: go on with --from %s\n", done.NextFrom)
	}
	return nil
}

type scheduleFires struct {
	scheduleName
	Limit int `help:"How many at the most." default:"50"`
}

func (c *scheduleFires) Run(a *app) error {
	type fire struct {
		Due         time.Time `json:"due"`
		ExecutionID string    `json:"executionId"`
		Status      string    `json:"status"`
		Outcome     string    `json:"outcome"`
		Reason      string    `json:"reason"`
	}
	return list(a, "/schedules/"+url.PathEscape(c.Schedule)+"/fires", url.Values{}, c.Limit, func(items []fire) error {
		rows := make([][]string, len(items))
		for i, f := range items {
			rows[i] = []string{moment(f.Due), f.Outcome, f.ExecutionID, f.Status, f.Reason}
		}
		return a.table([]string{"DUE", "OUTCOME", "EXECUTION", "STATUS", "REASON"}, rows)
	})
}

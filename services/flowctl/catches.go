package main

import (
	"net/url"
	"strconv"
	"time"
)

type executionCatches struct {
	ID string `arg:""`
}

// Run lists what became of the execution's bad ends at flows with a trigger.error.
func (c *executionCatches) Run(a *app) error {
	type catch struct {
		FlowName, Ended, Outcome, Reason, ExecutionID, Status string
		Retries                                               int
		At                                                    time.Time
	}
	return get(a, "/executions/"+url.PathEscape(c.ID)+"/catches", func(v struct{ Items []catch }) error {
		rows := make([][]string, len(v.Items))
		for i, x := range v.Items {
			rows[i] = []string{x.FlowName, x.Ended, strconv.Itoa(x.Retries), x.Outcome, x.ExecutionID, x.Status, when(x.At), x.Reason}
		}
		return a.table([]string{"ERROR FLOW", "ENDED", "RETRIES", "OUTCOME", "EXECUTION", "STATUS", "AT", "REASON"}, rows)
	})
}

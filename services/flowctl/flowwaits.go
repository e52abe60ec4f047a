package main

import (
	"fmt"
	"net/url"
	"time"
)

// flowWaits shows the sums of a flow's waits.
type flowWaits struct {
	Flow  string        `arg:"" help:"Name or id."`
	Since time.Duration `default:"24h" help:"Of executions accepted in this time, 31 days at most."`
}

func (w *flowWaits) Run(a *app) error {
	type sum struct {
		Kind              string
		Count, Open       int
		Seconds, P50, P95 float64
	}
	query := url.Values{"since": {time.Now().Add(-w.Since).UTC().Format(time.RFC3339)}}
	return get(a, "/flows/"+url.PathEscape(w.Flow)+"/waits?"+query.Encode(), func(v struct{ Items []sum }) error {
		rows := make([][]string, len(v.Items))
		for i, x := range v.Items {
			rows[i] = []string{x.Kind, fmt.Sprint(x.Count), fmt.Sprint(x.Open), seconds(x.Seconds), seconds(x.P50), seconds(x.P95)}
		}
		return a.table([]string{"KIND", "WAITS", "OPEN", "TOGETHER", "MEDIAN", "95 %"}, rows)
	})
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"
)

type remoteCommand struct {
	List  remoteList  `cmd:"" help:"List the queues of remote tasks: what waits, what workers have, when they polled last."`
	Tasks remoteTasks `cmd:"" help:"List remote tasks that have not ended, with their workers and what these said last."`
	Token remoteToken `cmd:"" help:"Make a token for workers: it can do nothing but work on remote tasks."`
}

type remoteList struct{}

func (*remoteList) Run(a *app) error {
	return get(a, "/remote/queues", func(v struct {
		Items []struct {
			Queue            string
			Waiting, Leased  int
			Oldest, LastPoll time.Time
		}
	}) error {
		rows := make([][]string, len(v.Items))
		for i, q := range v.Items {
			rows[i] = []string{q.Queue, fmt.Sprint(q.Waiting), fmt.Sprint(q.Leased), ago(q.Oldest), ago(q.LastPoll)}
		}
		return a.table([]string{"QUEUE", "WAITING", "LEASED", "OLDEST", "LAST POLL"}, rows)
	})
}

type remoteTasks struct {
	Queue string `arg:"" optional:"" help:"Only this one's."`
	Limit int    `help:"How many at the most, up to 500." default:"50"`
}

func (l *remoteTasks) Run(a *app) error {
	return get(a, "/remote/tasks?"+url.Values{"limit": {fmt.Sprint(l.Limit)}, "queue": {l.Queue}}.Encode(), func(v struct {
		Items []struct {
			ID, Queue, ExecutionID, Node, Iteration, Worker string
			Leases                                          int
			CreatedAt, SeenAt                               time.Time
			Progress                                        json.RawMessage
		}
	}) error {
		rows := make([][]string, len(v.Items))
		for i, t := range v.Items {
			node := t.Node
			if t.Iteration != "" {
				node += "/" + t.Iteration
			}
			progress := []rune(string(t.Progress))
			rows[i] = []string{t.ID, t.Queue, t.ExecutionID, node, ago(t.CreatedAt), fmt.Sprint(t.Leases), t.Worker, ago(t.SeenAt), string(progress[:min(len(progress), 40)])}
		}
		return a.table([]string{"TASK", "QUEUE", "EXECUTION", "NODE", "MADE", "LEASES", "WORKER", "SEEN", "PROGRESS"}, rows)
	})
}

type remoteToken struct {
	Name  string   `arg:"" help:"What it is for."`
	Queue []string `help:"Only for this queue; several by comma. All if absent."`
}

// Run prints the token's text, which can't be shown again.
func (k *remoteToken) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	body := map[string]any{"name": k.Name, "role": "worker"}
	if len(k.Queue) > 0 {
		body["queues"] = k.Queue
	}
	return newToken(a, c, body)
}
